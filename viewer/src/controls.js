// Moving the flat camera: orbit or fly, by mouse, wheel, keys or fingers.
//
// The camera is a target, a distance and an orientation, so that orbiting, flying and jumping to a
// photo are one state; `goal` is where it is wanted and `now` follows it. Horizons are levelled
// when the user turns, because a photo may have been held at a slant.
import { Quaternion, Vector3 } from "three";

const UP = new Vector3(0, 1, 0);
const TURN = 0.005; // radians per pixel
const STEEP = 0.99; // sine of the steepest view
// Key -> axis of the camera and sign.
const STEPS = {
  ...{ KeyA: [0, -1], KeyD: [0, 1] },
  ...{ KeyQ: [1, -1], KeyE: [1, 1] },
  ...{ KeyW: [2, -1], KeyS: [2, 1] },
};
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Controls {
  constructor(stage, centre, radius) {
    this.stage = stage;
    this.centre = new Vector3().fromArray(centre);
    this.radius = radius;
    this.flying = false;
    this.enabled = true;
    this.speed = 1;
    this.pace = 14;
    this.keys = new Set();
    this.pointers = new Map();
    this.goal = { target: this.centre.clone(), q: new Quaternion(), d: 2 * radius };
    this.now = { target: this.centre.clone(), q: new Quaternion(), d: 2 * radius };
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.onMove = () => {};
    this.listen(stage.canvas);
  }

  // Go to a pose; the target is the point of the view axis that is nearest to the scene's centre.
  jump(position, quaternion, { at = false } = {}) {
    const p = new Vector3().fromArray(position);
    const q = new Quaternion().fromArray(quaternion).normalize();
    const ahead = new Vector3(0, 0, -1).applyQuaternion(q);
    const reach = this.centre.clone().sub(p).dot(ahead);
    this.goal.d = Math.max(reach, 0.2 * this.radius);
    this.goal.q.copy(q);
    this.goal.target.copy(p).addScaledVector(ahead, this.goal.d);
    this.pace = 6;
    if (at || this.still) this.settle();
    this.stage.dirty = true;
  }

  settle() {
    this.now.target.copy(this.goal.target);
    this.now.q.copy(this.goal.q);
    this.now.d = this.goal.d;
  }

  // Turn by radians to the right and down: about the target, or about the eye when flying.
  turn(x, y, about = this.flying ? "eye" : "target") {
    const { goal } = this;
    const eye = this.eye(goal);
    level(goal.q);
    goal.q.premultiply(new Quaternion().setFromAxisAngle(UP, -x));
    const ahead = new Vector3(0, 0, -1).applyQuaternion(goal.q);
    const steep = Math.asin(Math.max(-1, Math.min(1, ahead.y)));
    const most = Math.asin(STEEP);
    const next = Math.max(-most, Math.min(most, steep - y));
    goal.q.multiply(new Quaternion().setFromAxisAngle(new Vector3(1, 0, 0), next - steep));
    if (about === "eye") {
      goal.target.copy(eye).add(new Vector3(0, 0, -goal.d).applyQuaternion(goal.q));
      this.settle(); // looking about must not move the eye
    }
    this.touched();
  }

  // Shift by pixels of the canvas, as if the point under the pointer were held.
  pan(x, y) {
    const height = Math.max(this.stage.canvas.clientHeight, 1);
    const unit = (2 * this.goal.d * Math.tan((this.stage.camera.fov * Math.PI) / 360)) / height;
    this.shift(new Vector3(-x * unit, y * unit, 0));
  }

  // Move by camera axes: right, up, backward.
  shift(step) {
    this.goal.target.add(step.applyQuaternion(this.goal.q));
    this.touched();
  }

  zoom(amount) {
    if (this.flying) {
      this.shift(new Vector3(0, 0, amount * this.goal.d));
      return;
    }
    const d = this.goal.d * Math.exp(amount);
    this.goal.d = Math.max(1e-3 * this.radius, Math.min(100 * this.radius, d));
    this.touched();
  }

  touched() {
    this.pace = 14;
    this.stage.dirty = true;
    this.onMove();
  }

  eye(state = this.now) {
    return new Vector3(0, 0, state.d).applyQuaternion(state.q).add(state.target);
  }

  // Advance by dt seconds and set the camera; true while it still moves.
  update(dt) {
    this.walk(dt);
    const { now, goal, stage } = this;
    const part = this.still ? 1 : 1 - Math.exp(-this.pace * dt);
    const moving =
      now.target.distanceTo(goal.target) + Math.abs(now.d - goal.d) > 3e-4 * this.radius ||
      Math.abs(now.q.dot(goal.q)) < 1 - 3e-8;
    if (moving) {
      now.target.lerp(goal.target, part);
      now.q.slerp(goal.q, part);
      now.d += (goal.d - now.d) * part;
    } else {
      this.settle();
    }
    stage.camera.position.copy(this.eye());
    stage.camera.quaternion.copy(now.q);
    stage.dirty ||= moving;
    return moving;
  }

  walk(dt) {
    const step = new Vector3();
    const turn = [0, 0];
    for (const code of this.keys) {
      const [axis, sign] = STEPS[code] ?? [0, 0];
      step.setComponent(axis, step.getComponent(axis) + sign);
      (TURNS[code] ?? []).forEach((v, k) => {
        turn[k] += v;
      });
    }
    const fast = this.keys.has("ShiftLeft") || this.keys.has("ShiftRight") ? 4 : 1;
    const far = dt * fast * this.speed * 0.6 * this.radius;
    if (step.lengthSq()) this.shift(step.multiplyScalar(far));
    if (turn[0] || turn[1]) this.turn(1.2 * dt * turn[0], 1.2 * dt * turn[1]);
  }

  listen(canvas) {
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("pointerdown", (e) => this.press(e));
    canvas.addEventListener("pointermove", (e) => this.drag(e));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (e) => this.pointers.delete(e.pointerId));
    }
    canvas.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    addEventListener("keydown", (e) => {
      const typing = e.target instanceof Element && e.target.closest("input, textarea, select");
      if (!this.enabled || typing || e.ctrlKey || e.metaKey || e.altKey) return;
      if (!STEPS[e.code] && !TURNS[e.code] && !e.code.startsWith("Shift")) return;
      if (TURNS[e.code]) e.preventDefault();
      this.keys.add(e.code);
      this.stage.dirty = true;
    });
    addEventListener("keyup", (e) => this.keys.delete(e.code));
    addEventListener("blur", () => this.keys.clear());
  }

  press(e) {
    if (!this.enabled) return;
    this.stage.canvas.focus({ preventScroll: true });
    try {
      this.stage.canvas.setPointerCapture(e.pointerId);
    } catch {
      // the pointer is gone already
    }
    this.pointers.set(e.pointerId, { x: e.clientX, y: e.clientY, button: e.button });
  }

  drag(e) {
    const held = this.pointers.get(e.pointerId);
    if (!held || !this.enabled) return;
    const [dx, dy] = [e.clientX - held.x, e.clientY - held.y];
    const before = this.spread();
    held.x = e.clientX;
    held.y = e.clientY;
    if (this.pointers.size === 2) {
      const after = this.spread();
      this.pan(dx / 2, dy / 2);
      if (before > 0 && after > 0) this.zoom(Math.log(before / after));
    } else if (held.button === 0 && !e.shiftKey) {
      const grab = this.flying ? -TURN : TURN; // what is under the pointer follows it
      this.turn(dx * grab, dy * grab);
    } else {
      this.pan(dx, dy);
    }
  }

  // Distance of two fingers, pixels.
  spread() {
    const [a, b] = [...this.pointers.values()];
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }

  wheel(e) {
    if (!this.enabled) return;
    e.preventDefault();
    const lines = [1, 16, 400][e.deltaMode];
    const amount = e.deltaY * lines * (e.ctrlKey ? 0.01 : 0.001);
    this.zoom(Math.max(-0.5, Math.min(0.5, amount)));
  }
}

// Take the slant out of an orientation; its view direction stays.
function level(q) {
  const ahead = new Vector3(0, 0, -1).applyQuaternion(q);
  if (Math.abs(ahead.y) > 0.999) return;
  const right = new Vector3().crossVectors(ahead, UP).normalize();
  const held = new Vector3(1, 0, 0).applyQuaternion(q);
  const angle = Math.atan2(held.clone().cross(right).dot(ahead), held.dot(right));
  q.premultiply(new Quaternion().setFromAxisAngle(ahead, angle));
}
