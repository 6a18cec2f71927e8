// Bundle the viewer into the package: node build.mjs [FOLDER]
// Writes bundle.js (with the licences of what it holds) and THIRD_PARTY.txt beside template.html and
// style.css, whose sources are there; prints sizes and SHA-256, to compare with what is committed.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "..", "lumefield", "apps", "viewer"));
const read = (...path) => readFileSync(join(here, ...path), "utf8");
const USED = ["three", "@sparkjsdev/spark", "fflate"];

const notices = USED.map((name) => {
  const { version, license } = JSON.parse(read("node_modules", name, "package.json"));
  return `${name} ${version} (${license})\n\n${read("node_modules", name, "LICENSE").trim()}\n`;
}).join(`\n${"-".repeat(72)}\n\n`);

await build({
  absWorkingDir: here,
  entryPoints: ["src/main.js"],
  outfile: join(out, "bundle.js"),
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "eof",
  banner: { js: `/*!\n${notices}*/` },
  logLevel: "warning",
});
mkdirSync(out, { recursive: true });
writeFileSync(join(out, "THIRD_PARTY.txt"), notices);
for (const file of ["bundle.js", "THIRD_PARTY.txt"]) {
  const bytes = readFileSync(join(out, file));
  const sha = createHash("sha256").update(bytes).digest("hex");
  console.log(`${file} ${bytes.length} bytes, ${gzipSync(bytes).length} gzip, sha256 ${sha}`);
}
