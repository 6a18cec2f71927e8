// Headless Chromium for the tests: a JSON order a line on stdin, a JSON answer a line on stdout.
//   CHROMIUM names the browser (default /usr/bin/chromium).
// Orders: open {url, width, height, headset, touch, insecure, init}, wait {code, timeout}, eval {code},
// mouse {x, y, to: [[x, y], ...], button}, wheel {x, y, by}, key {code, ms}, touch {from, to},
// click {at}, shot {path}, requests, log, close.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const ARGS = [
  "--no-sandbox",
  "--use-gl=angle",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--ignore-gpu-blocklist",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--force-device-scale-factor=1",
];
const IWER = createRequire(import.meta.url).resolve("iwer/build/iwer.min.js");
// Chromium has its own navigator.xr, which the emulated Quest 3 has to replace.
const HEADSET = `${readFileSync(IWER, "utf8")};
  globalThis.headset = new IWER.XRDevice(IWER.metaQuest3);
  headset.stereoEnabled = true; headset.ipd = 0.063;
  headset.installRuntime({ polyfillLayers: false, forceInstall: true });`;

let browser;
let page;
let requests = [];
let log = [];
const profile = mkdtempSync(join(tmpdir(), "lumefield-viewer-"));

async function open({ url, width = 480, height = 360, headset, touch, insecure, init }) {
  await browser?.close();
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    headless: true,
    args: ARGS,
    viewport: { width, height },
    hasTouch: Boolean(touch),
    ignoreHTTPSErrors: Boolean(insecure),
  });
  page = await browser.newPage();
  requests = [];
  log = [];
  page.on("request", (r) => requests.push(r.url()));
  page.on("console", (m) => log.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => log.push(`error: ${e}`));
  if (headset) await page.addInitScript(HEADSET);
  if (init) await page.addInitScript(init);
  await page.goto(url, { timeout: 60_000 });
}

async function touch({ from, to }) {
  const session = await browser.newCDPSession(page);
  const fingers = (points) => points.map(([x, y], id) => ({ x, y, id }));
  const send = (type, touchPoints) =>
    session.send("Input.dispatchTouchEvent", { type, touchPoints });
  await send("touchStart", fingers(from));
  for (let k = 1; k <= 6; k++) {
    const at = from.map((p, i) => p.map((v, j) => v + ((to[i][j] - v) * k) / 6));
    await send("touchMove", fingers(at));
  }
  await send("touchEnd", []);
}

// The page's policy forbids the eval that waitForFunction needs, so the driver asks repeatedly.
async function wait({ code, timeout = 60_000 }) {
  const until = Date.now() + timeout;
  while (!(await page.evaluate(code))) {
    if (Date.now() > until) throw new Error(`still not so after ${timeout} ms: ${code}`);
    await page.waitForTimeout(50);
  }
}

const ORDERS = {
  open,
  touch,
  wait,
  eval: ({ code }) => page.evaluate(code),
  async mouse({ x, y, to, button = "left" }) {
    await page.mouse.move(x, y);
    await page.mouse.down({ button });
    for (const [u, v] of to) await page.mouse.move(u, v, { steps: 4 });
    await page.mouse.up({ button });
  },
  async wheel({ x, y, by }) {
    await page.mouse.move(x, y);
    await page.mouse.wheel(0, by);
  },
  key: ({ code, ms = 0 }) => page.keyboard.press(code, { delay: ms }),
  click: ({ at }) => page.click(at),
  shot: ({ path, quality }) =>
    page.screenshot({ path, ...(quality ? { type: "jpeg", quality } : {}), timeout: 60_000 }),
  requests: () => requests,
  log: () => log,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { order, ...rest } = JSON.parse(line);
  if (order === "close") break;
  let answer;
  try {
    const value = await ORDERS[order](rest);
    answer = { value: value ?? null };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser?.close();
rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
