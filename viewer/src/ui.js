// The page's words and buttons. Names come from files: they are only ever set as text.
import { Vr } from "./vr.js";

const $ = (id) => document.getElementById(id);
const NO_VR = {
  "needs https": "VR needs https: serve the page with `lumefield view --https`",
  "not in this browser": "This browser has no WebXR; open the page in a headset's browser",
  "no headset found": "No headset found; connect one, or open the page in its browser",
};

export class Ui {
  constructor(config) {
    this.config = config;
    this.times = [];
    this.told = 0;
    this.news = "";
    this.sized(config.scenes);
    document.documentElement.style.setProperty("--scene", config.background);
  }

  // How large the scenes are.
  sized(scenes) {
    const count = scenes.map((s) => s.count.toLocaleString("en")).join(" | ");
    this.size = `${count} splats, ${scenes.map((s) => megabytes(s.bytes)).join(" | ")}`;
    $("stats").textContent = this.size;
  }

  // What a training that is followed has to say.
  tell(words) {
    this.news = words && `${words}, `;
  }

  connect(page) {
    this.page = page;
    this.list(page);
    this.button("list-button", "KeyC", () => this.toggle("cameras"));
    this.button("fly", "KeyF", () => this.fly());
    this.button("home", "Digit0", () => page.look(0));
    this.button("shot", "KeyP", () => this.screenshot());
    this.button("full", "KeyG", () => this.fullscreen());
    this.button("help-button", "KeyH", () => $("help").showModal());
    this.button("stats-button", "KeyI", () => this.toggle("stats"));
    $("full").hidden = !document.documentElement.requestFullscreen;
    addEventListener("keydown", (e) => this.key(e));
    this.divider();
    this.headset();
  }

  button(id, code, act) {
    $(id).addEventListener("click", act);
    this.codes = { ...this.codes, [code]: act };
  }

  key(e) {
    const typing = e.target instanceof Element && e.target.closest("input, textarea, select");
    if (typing || e.ctrlKey || e.metaKey || e.altKey || e.repeat || $("help").open) return;
    const number = /^Digit([1-9])$/.exec(e.code);
    if (number && this.config.cameras[number[1] - 1]) this.page.look(number[1] - 1);
    else if (e.code === "BracketLeft" || e.code === "PageUp") this.page.step(-1);
    else if (e.code === "BracketRight" || e.code === "PageDown") this.page.step(1);
    else this.codes[e.code]?.();
  }

  list(page) {
    const items = this.config.cameras.map((camera, k) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = camera.name;
      if (camera.heldOut) button.append(tag("held out"));
      button.addEventListener("click", () => page.look(k));
      item.append(button);
      return item;
    });
    $("camera-list").replaceChildren(...items);
    $("camera-count").textContent = `${items.length} views`;
  }

  mark(k) {
    const marked = $("camera-list").querySelector("[aria-current]");
    marked?.removeAttribute("aria-current");
    const button = $("camera-list").children[k]?.firstElementChild;
    button?.setAttribute("aria-current", "true");
    if (!$("cameras").hidden) button?.scrollIntoView({ block: "nearest" });
  }

  toggle(id) {
    $(id).hidden = !$(id).hidden;
    $(id === "cameras" ? "list-button" : "stats-button").setAttribute(
      "aria-pressed",
      String(!$(id).hidden),
    );
  }

  fly() {
    const { controls } = this.page;
    controls.flying = !controls.flying;
    $("fly").setAttribute("aria-pressed", String(controls.flying));
  }

  async screenshot() {
    const blob = await this.page.stage.picture();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${this.config.title.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "scene"}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.();
  }

  // Two scenes: a line to drag between them, or whole pictures side by side.
  divider() {
    const { stage } = this.page;
    if (stage.layers.length < 2) return;
    const [line, split] = [$("divider"), $("split")];
    this.config.scenes.forEach((scene, k) => {
      $(`name-${k}`).textContent = scene.name;
      $(`name-${k}`).hidden = false;
    });
    const put = (x) => {
      stage.split = Math.min(Math.max(x / stage.canvas.clientWidth, 0.02), 0.98);
      line.style.left = `${100 * (stage.beside ? 0.5 : stage.split)}%`;
      stage.dirty = true;
    };
    line.hidden = split.hidden = false;
    line.addEventListener("pointerdown", (e) => line.setPointerCapture(e.pointerId));
    line.addEventListener("pointermove", (e) => {
      if (line.hasPointerCapture(e.pointerId) && !stage.beside) put(e.clientX);
    });
    line.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -0.02, ArrowRight: 0.02 }[e.code];
      if (!by) return;
      e.stopPropagation();
      put((stage.split + by) * stage.canvas.clientWidth);
    });
    this.button("split", "KeyB", () => {
      stage.beside = !stage.beside;
      split.setAttribute("aria-pressed", String(stage.beside));
      put(stage.split * stage.canvas.clientWidth);
      stage.lens();
    });
  }

  async headset() {
    const { vr } = this.page;
    const button = $("vr");
    vr.onChange = () => {
      button.textContent = vr.session ? "Leave VR" : "Enter VR";
    };
    const able = await Vr.support();
    if (able !== "yes") {
      button.title = NO_VR[able];
      button.setAttribute("aria-disabled", "true");
      button.addEventListener("click", () => this.say(NO_VR[able]));
      return;
    }
    button.title = "Enter VR (V)";
    this.button("vr", "KeyV", async () => {
      try {
        await (vr.session ? vr.leave() : vr.enter());
      } catch (error) {
        this.say(`The headset did not start: ${error?.message ?? error}. Try again.`);
      }
    });
  }

  progress(part) {
    $("progress").textContent = part < 1 ? `Loading ${Math.round(100 * part)} %` : "Preparing";
  }

  show() {
    $("progress").hidden = true;
    const poster = $("poster");
    if (!poster) return;
    poster.classList.add("gone");
    setTimeout(() => poster.remove(), 700);
  }

  fail(text) {
    $("progress").hidden = true;
    $("error").textContent = text;
    $("error").hidden = false;
  }

  say(text) {
    this.fail(text);
    clearTimeout(this.hush);
    this.hush = setTimeout(() => {
      $("error").hidden = true;
    }, 6000);
  }

  // Pictures a second while something moves; the page draws nothing while nothing does.
  tick(now, drawn) {
    if (drawn) this.times.push(now);
    if (now - this.told < 500) return;
    this.told = now;
    this.times = this.times.filter((t) => now - t < 1000);
    if ($("stats").hidden) return;
    const rate = this.times.length > 1 ? `${this.times.length} fps` : "at rest";
    const text = `${this.news}${this.size}, ${rate}`;
    if ($("stats").textContent !== text) $("stats").textContent = text;
  }
}

function tag(text) {
  const small = document.createElement("small");
  small.textContent = text;
  return small;
}

function megabytes(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
