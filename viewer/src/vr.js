// A WebXR session: where the scene stands about the viewer, and how hands move it.
//
// The scene is moved, never the camera's parent: Spark takes its order and its view-dependent
// colours from the headset's pose without the offset of a parent, so that these would be wrong.
import { Quaternion, Vector3 } from "three";
import { Arc } from "./arc.js";

const UP = new Vector3(0, 1, 0);
const SNAP = Math.PI / 6;
const DEAD = 0.25; // of a thumbstick
const STROLL = 1.4; // metres a second
const LEAST = 1e-3;
const MOST = 1e3; // times the scale at the start

export class Vr {
  constructor(stage, controls) {
    this.stage = stage;
    this.controls = controls;
    this.xr = stage.renderer.xr;
    this.session = null;
    this.onChange = () => {};
    this.yaw = 0;
    this.scale = 1;
    this.offset = new Vector3(); // headset_from_page = offset + scale * turn(yaw)
    this.at = new Vector3(); // of the head
    this.ahead = new Vector3(0, 0, -1);
    this.hands = [0, 1].map((k) => this.hand(k));
    this.xr.addEventListener("sessionend", () => this.left());
  }

  // Whether a headset can be entered: "yes", or why not.
  static async support() {
    if (!globalThis.isSecureContext) return "needs https";
    if (!navigator.xr) return "not in this browser";
    const able = await navigator.xr.isSessionSupported("immersive-vr").catch(() => false);
    return able ? "yes" : "no headset found";
  }

  async enter() {
    const session = await navigator.xr.requestSession("immersive-vr", {
      optionalFeatures: ["local-floor", "bounded-floor", "hand-tracking", "layers"],
    });
    this.session = session;
    this.placed = false;
    this.stage.enterXr(0.05, 2000);
    this.controls.enabled = false;
    this.xr.enabled = true;
    this.xr.setReferenceSpaceType("local-floor");
    try {
      await this.xr.setSession(session);
    } catch (error) {
      await session.end();
      if (this.session) this.left();
      throw error;
    }
    this.xr.setFoveation(1);
    this.onChange();
  }

  async leave() {
    await this.session?.end();
  }

  left() {
    for (const hand of this.hands) {
      hand.arc.hide();
      hand.arc.object.removeFromParent();
      hand.grip = null;
    }
    this.session = null;
    this.xr.enabled = false;
    this.controls.enabled = true;
    this.stage.leaveXr();
    this.onChange();
  }

  hand(k) {
    const ray = this.xr.getController(k);
    const hand = { ray, arc: new Arc(), aiming: false, grip: null, source: null, snapped: false };
    ray.addEventListener("connected", (e) => {
      hand.source = e.data;
    });
    ray.addEventListener("disconnected", () => {
      hand.source = null;
    });
    ray.addEventListener("selectstart", () => {
      hand.aiming = true;
    });
    ray.addEventListener("selectend", () => {
      hand.aiming = false;
      const spot = hand.arc.hide();
      if (spot) this.teleport(spot);
    });
    ray.addEventListener("squeezestart", () => {
      hand.grip = ray.position.clone();
    });
    ray.addEventListener("squeezeend", () => {
      hand.grip = null;
    });
    return hand;
  }

  // Before the first picture: stand where the flat camera is, facing where it looked.
  start() {
    const { config } = this.stage;
    const eye = this.controls.eye();
    const ahead = new Vector3(0, 0, -1).applyQuaternion(this.controls.now.q);
    this.scale = this.first = config.metres;
    this.yaw = heading(this.ahead) - heading(ahead);
    const floor = new Vector3(eye.x, config.floor, eye.z);
    const feet = new Vector3(this.at.x, 0, this.at.z);
    this.offset.copy(feet).sub(this.turned(floor));
    this.placed = true;
  }

  turned(v) {
    return v.clone().multiplyScalar(this.scale).applyAxisAngle(UP, this.yaw);
  }

  // Once a frame, before drawing.
  update(frame, dt) {
    const pose = frame?.getViewerPose(this.xr.getReferenceSpace());
    if (!pose) return;
    this.at.copy(pose.transform.position);
    this.ahead.set(0, 0, -1).applyQuaternion(pose.transform.orientation);
    if (!this.placed) this.start();
    const { scene } = this.stage.layers[this.stage.shown];
    for (const hand of this.hands) {
      if (hand.arc.object.parent !== scene) scene.add(hand.arc.object);
      if (hand.aiming) hand.arc.aim(hand.ray);
      this.sticks(hand, dt);
    }
    this.grab();
    for (const { world } of this.stage.layers) {
      world.position.copy(this.offset);
      world.quaternion.copy(new Quaternion().setFromAxisAngle(UP, this.yaw));
      world.scale.setScalar(this.scale);
    }
  }

  teleport(spot) {
    this.offset.x += this.at.x - spot.x;
    this.offset.z += this.at.z - spot.z;
  }

  // Turn and scale about a point of the room, which stays where it is.
  about(point, angle, factor) {
    const next = Math.min(Math.max(this.scale * factor, this.first * LEAST), this.first * MOST);
    this.offset.sub(point).multiplyScalar(next / this.scale).applyAxisAngle(UP, angle).add(point);
    this.scale = next;
    this.yaw += angle;
  }

  // Left stick walks; right stick turns in steps, and forward or back makes the scene larger or
  // smaller; the upper buttons swap two scenes, the lower ones start anew.
  sticks(hand, dt) {
    const pad = hand.source?.gamepad;
    if (!pad || pad.axes.length < 4) return;
    const [x, y] = [pad.axes[2], pad.axes[3]].map((v) => (Math.abs(v) < DEAD ? 0 : v));
    const feet = new Vector3(this.at.x, 0, this.at.z);
    if (hand.source.handedness === "left") {
      const step = new Vector3(x, 0, y).applyAxisAngle(UP, heading(this.ahead));
      this.offset.addScaledVector(step, -STROLL * dt);
    } else {
      if (x && !hand.snapped) this.about(feet, Math.sign(x) * SNAP, 1);
      hand.snapped = x !== 0;
      if (y && !x) this.about(feet, 0, Math.exp(-y * dt));
    }
    const [low, high] = [4, 5].map((k) => Boolean(pad.buttons[k]?.pressed));
    if (low && !hand.low) this.placed = false;
    if (high && !hand.high) this.stage.shown = (this.stage.shown + 1) % this.stage.layers.length;
    hand.low = low;
    hand.high = high;
  }

  // One squeezed hand drags the scene; two also turn and scale it.
  grab() {
    const held = this.hands.filter((hand) => hand.grip);
    if (!held.length) return;
    const now = held.map((hand) => hand.ray.position.clone());
    const was = held.map((hand) => hand.grip);
    const [from, to] = [middle(was), middle(now)];
    this.offset.add(to).sub(from);
    if (held.length === 2) {
      const [a, b] = [was[1].clone().sub(was[0]), now[1].clone().sub(now[0])];
      if (a.length() > 0.02 && b.length() > 0.02) {
        this.about(to, heading(b) - heading(a), b.length() / a.length());
      }
    }
    held.forEach((hand, k) => {
      hand.grip = now[k];
    });
  }
}

const middle = (points) =>
  points.reduce((sum, p) => sum.add(p), new Vector3()).divideScalar(points.length);
// Angle about the vertical from -z to a direction, counter-clockwise from above.
const heading = (v) => Math.atan2(-v.x, -v.z);
