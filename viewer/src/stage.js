// What is drawn: one canvas, one camera, one or two scenes with a Spark renderer each.
import { SparkRenderer } from "@sparkjsdev/spark";
import { Color, Group, PerspectiveCamera, Quaternion, Scene, WebGLRenderer } from "three";

const HALF_TURN_X = new Quaternion(1, 0, 0, 0);
// lumefield's renderer cuts a splat where its alpha falls under 1/255, which is this many standard
// deviations out for an opaque one; in a headset Spark's own smaller radius saves fill rate.
const REACH = Math.sqrt(2 * Math.log(255));
const REACH_XR = Math.sqrt(5);
const BLUR = 0.3;

// Whether splats are kept at full precision, twice the memory of Spark's packed ones.
export const fine = (count) => count <= 1_500_000 && !matchMedia("(pointer: coarse)").matches;

export class Stage {
  constructor(canvas, config) {
    this.config = config;
    this.canvas = canvas;
    // No multisampling: it costs much, does nothing for splats and hangs the Quest's browser.
    this.renderer = new WebGLRenderer({
      canvas,
      antialias: false,
      powerPreference: "high-performance",
    });
    this.camera = new PerspectiveCamera(50, 1, config.radius / 200, config.radius * 1000);
    this.layers = config.scenes.map((scene) => this.layer(scene));
    this.shown = 0; // which scene is drawn where only one can be: in a headset
    this.split = 0.5; // where the divider of two scenes stands, fraction of the width
    this.beside = false; // two whole pictures side by side instead of a divider
    this.dirty = true;
    this.focal = null; // of the photo that is looked through: focal length / height
    this.aspect = null;
    this.shift = [0, 0]; // of its axis from its middle, parts of width and height
    this.resize();
  }

  layer(info) {
    const scene = new Scene();
    scene.background = new Color(this.config.background);
    const world = new Group();
    const spark = new SparkRenderer({
      renderer: this.renderer,
      onDirty: () => {
        this.dirty = true;
      },
      maxStdDev: REACH,
      minAlpha: 1 / 255,
      // A scene trained without the antialiasing filter is only blurred; one trained with it also
      // loses opacity for what the blur adds.
      preBlurAmount: info.antialiased ? 0 : BLUR,
      blurAmount: info.antialiased ? BLUR : 0,
      sortRadial: false, // by depth, as in training
      accumExtSplats: fine(info.count),
    });
    scene.add(world, spark);
    return { info, scene, world, spark, mesh: null };
  }

  // Files of the PLY family are stored x right, y down, z forward; SPZ is y up, z backward.
  place(layer, mesh) {
    mesh.quaternion.fromArray(this.config.pageFromScene);
    if (layer.info.kind === "spz") mesh.quaternion.multiply(HALF_TURN_X);
    layer.mesh?.dispose();
    if (layer.mesh) layer.world.remove(layer.mesh);
    layer.mesh = mesh;
    layer.world.add(mesh);
    this.dirty = true;
  }

  get sorted() {
    return this.layers.every((l) => l.mesh && l.spark.activeSplats > 0);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const limit = matchMedia("(pointer: coarse)").matches ? 1.5 : 2;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio || 1, limit));
    this.renderer.setSize(Math.max(width, 1), Math.max(height, 1), false);
    this.lens();
  }

  // The field of view that shows all of the photo that is looked through, or 50 degrees.
  lens() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const wide = (w / Math.max(h, 1)) * (this.beside && this.layers.length > 1 ? 0.5 : 1);
    this.camera.aspect = wide;
    let half = this.focal ? 0.5 / this.focal : Math.tan((25 * Math.PI) / 180);
    if (this.aspect && wide < this.aspect) half *= this.aspect / wide;
    this.camera.fov = (2 * Math.atan(half) * 180) / Math.PI;
    this.camera.updateProjectionMatrix();
    const tall = this.focal ? 0.5 / (this.focal * half) : 0;
    if (tall) this.shiftLens((tall * this.aspect) / wide, tall);
    this.dirty = true;
  }

  // A photo's axis need not go through its middle; the photo fills this part of the canvas.
  shiftLens(across, down) {
    const { projectionMatrix, projectionMatrixInverse } = this.camera;
    projectionMatrix.elements[8] = -2 * this.shift[0] * across;
    projectionMatrix.elements[9] = 2 * this.shift[1] * down;
    projectionMatrixInverse.copy(projectionMatrix).invert();
  }

  enterXr(near, far) {
    this.flat = { near: this.camera.near, far: this.camera.far };
    this.camera.near = near;
    this.camera.far = far;
    for (const { spark } of this.layers) {
      spark.maxStdDev = REACH_XR;
      spark.sortRadial = true; // turning the head then changes no order
    }
  }

  leaveXr() {
    Object.assign(this.camera, this.flat);
    for (const { world, spark } of this.layers) {
      spark.maxStdDev = REACH;
      spark.sortRadial = false;
      world.position.set(0, 0, 0);
      world.quaternion.identity();
      world.scale.setScalar(1);
    }
    this.resize();
  }

  draw() {
    this.dirty = false;
    const { renderer, camera, layers } = this;
    if (renderer.xr.isPresenting || layers.length === 1) {
      renderer.render(layers[this.shown].scene, camera);
      return;
    }
    const { clientWidth: w, clientHeight: h } = this.canvas;
    renderer.setScissorTest(true);
    layers.forEach(({ scene }, k) => {
      const at = Math.round(w * (this.beside ? 0.5 : this.split));
      const [left, width] = k === 0 ? [0, at] : [at, w - at];
      renderer.setScissor(left, 0, width, h);
      renderer.setViewport(...(this.beside ? [left, 0, width, h] : [0, 0, w, h]));
      if (width > 0) renderer.render(scene, camera);
    });
    renderer.setScissorTest(false);
    renderer.setViewport(0, 0, w, h);
  }

  // The canvas as a picture; drawn anew because a browser may forget the pixels after a frame.
  picture(type = "image/png") {
    this.draw();
    return new Promise((done) => this.canvas.toBlob(done, type));
  }
}
