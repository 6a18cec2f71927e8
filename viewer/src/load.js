// From the page's own bytes, or a file beside it, to a mesh of splats.
import { SplatFileType, SplatMesh } from "@sparkjsdev/spark";
import { fine } from "./stage.js";

const KINDS = {
  ply: SplatFileType.PLY,
  spz: SplatFileType.SPZ,
  splat: SplatFileType.SPLAT,
  sog: SplatFileType.PCSOGSZIP,
};

function inlined(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent.trim());
  element.remove(); // the text is no longer needed and may be large
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

async function fetched(url, bytes, tell) {
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`the server answered ${answer.status} for ${url}`);
  const total = Number(answer.headers.get("content-length")) || bytes;
  const parts = [];
  let got = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    got += value.length;
    tell(total ? Math.min(got / total, 1) : 0);
  }
  const all = new Uint8Array(got);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export async function loadSplats(info, tell) {
  const fileBytes = info.url
    ? await fetched(info.url, info.bytes, tell)
    : inlined(info.element);
  tell(1);
  const mesh = new SplatMesh({
    fileBytes,
    fileType: KINDS[info.kind],
    fileName: `scene.${info.kind}`,
    extSplats: fine(info.count),
  });
  await mesh.initialized;
  return mesh;
}
