// Following a training: ask its server now and then, and exchange the scene; the camera stays.
import { loadSplats } from "./load.js";

const PATIENCE = 3; // questions without an answer, after which the page says so

export class Live {
  constructor(page, ui, config) {
    Object.assign(this, { page, ui, config, silent: 0, swaps: 0 });
    [this.layer] = page.stage.layers;
    this.shown = this.layer.info.url;
  }

  // For as long as the page is open: a training that is resumed at the same place is found again.
  async run() {
    for (;;) {
      const slow = this.silent > PATIENCE ? 5 : 1;
      await new Promise((done) => setTimeout(done, 1000 * this.config.every * slow));
      if (document.hidden && !this.page.vr.session) continue;
      try {
        await this.ask();
        this.silent = 0;
      } catch {
        this.silent += 1;
      }
      if (this.silent === PATIENCE) this.ui.tell("the training has ended; this is the last scene");
    }
  }

  async ask() {
    const answer = await fetch(this.config.url, { cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const { words, scene } = await answer.json();
    this.ui.tell(words);
    if (scene.url === this.shown) return;
    const mesh = await loadSplats(scene, () => {});
    this.layer.info = scene;
    this.page.stage.place(this.layer, mesh);
    this.ui.sized([scene]);
    this.shown = scene.url;
    this.swaps += 1;
  }
}
