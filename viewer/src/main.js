// The page: read its settings, load the splats, then draw whenever something has changed.
import { Controls } from "./controls.js";
import { Live } from "./live.js";
import { loadSplats } from "./load.js";
import { Stage } from "./stage.js";
import { Ui } from "./ui.js";
import { Vr } from "./vr.js";

const config = JSON.parse(document.getElementById("settings").textContent);
const ui = new Ui(config);

function start() {
  const stage = new Stage(document.getElementById("view"), config);
  const controls = new Controls(stage, config.centre, config.radius);
  const vr = new Vr(stage, controls);
  const page = new Page(stage, controls, vr);
  ui.connect(page);
  page.look(0, { at: true });
  page.run();
  return page;
}

class Page {
  constructor(stage, controls, vr) {
    Object.assign(this, { stage, controls, vr, config, frames: 0, shown: false });
    this.ready = this.load();
    new ResizeObserver(() => {
      if (!vr.session) stage.resize();
    }).observe(stage.canvas);
    stage.canvas.addEventListener("webglcontextlost", (e) => {
      e.preventDefault();
      ui.fail("The graphics driver stopped drawing. Reload the page.");
    });
  }

  async load() {
    const told = this.config.scenes.map(() => 0);
    await Promise.all(
      this.stage.layers.map(async (layer, k) => {
        const mesh = await loadSplats(layer.info, (part) => {
          told[k] = part;
          ui.progress(told.reduce((a, b) => a + b) / told.length);
        });
        this.stage.place(layer, mesh);
      }),
    );
    while (!this.shown) await new Promise((done) => setTimeout(done, 20));
    if (this.config.live) {
      this.live = new Live(this, ui, this.config.live);
      this.live.run();
    }
  }

  // Look through a camera of the list; with { at } at once.
  look(k, how) {
    const shot = this.config.cameras[k];
    this.stage.focal = shot.focal;
    this.stage.aspect = shot.aspect;
    this.stage.shift = shot.shift;
    this.stage.lens();
    this.controls.jump(shot.position, shot.rotation, how);
    this.current = k;
    ui.mark(k);
  }

  step(by) {
    const n = this.config.cameras.length;
    this.look(((this.current ?? 0) + by + n) % n);
  }

  // What tests and embedding pages may want to know.
  pose() {
    const { camera } = this.stage;
    return { position: camera.position.toArray(), rotation: camera.quaternion.toArray() };
  }

  // Whether nothing moves, loads or sorts.
  get idle() {
    const quiet = this.stage.layers.every((l) => !l.spark.sorting && !l.spark.sortDirty);
    return this.shown && quiet && !this.moving && !this.stage.dirty;
  }

  run() {
    let last = performance.now();
    let first = 0;
    this.stage.renderer.setAnimationLoop((time, frame) => {
      const now = performance.now();
      const dt = Math.min((now - last) / 1000, 0.25);
      last = now;
      if (this.vr.session) {
        this.vr.update(frame, dt);
        this.stage.dirty = true;
      } else {
        this.moving = this.controls.update(dt);
      }
      ui.tick(now, this.stage.dirty);
      if (!this.stage.dirty) return;
      this.stage.draw();
      this.frames += 1;
      // The poster goes once splats in their right order have been drawn.
      if (!this.shown && this.stage.sorted && ++first > 1) {
        this.shown = true;
        ui.show();
      } else if (!this.shown) {
        this.stage.dirty = true;
      }
    });
  }
}

try {
  globalThis.lumefield = start();
  globalThis.lumefield.ready.catch((error) => {
    ui.fail(`The scene could not be loaded: ${error?.message ?? error}. Reload the page.`);
  });
} catch (error) {
  ui.fail(
    "This browser cannot draw the scene: it needs WebGL 2. Use a current browser, with " +
      `hardware acceleration switched on. (${error?.message ?? error})`,
  );
}
