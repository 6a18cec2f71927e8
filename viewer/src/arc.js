// The curve that a teleport is aimed with, and the ring where it lands.
import {
  BufferAttribute,
  BufferGeometry,
  Group,
  Mesh,
  MeshBasicMaterial,
  RingGeometry,
  Vector3,
} from "three";

const POINTS = 40;
const SPEED = 6; // metres a second
const FALL = 9.8;
const TIME = 1.6; // seconds that are drawn at most
const HALF = 0.006; // half the width of the curve, metres; a drawn line would be one pixel wide
const COLOUR = 0x7fd4c1;

export class Arc {
  constructor() {
    const look = { color: COLOUR, depthTest: false, depthWrite: false, transparent: true, side: 2 };
    const band = new BufferGeometry();
    band.setAttribute("position", new BufferAttribute(new Float32Array(6 * POINTS), 3));
    const pairs = Array.from({ length: POINTS - 1 }, (_, k) => 2 * k);
    band.setIndex(pairs.flatMap((k) => [0, 1, 2, 2, 1, 3].map((c) => k + c)));
    this.line = new Mesh(band, new MeshBasicMaterial(look));
    this.line.frustumCulled = false;
    const ring = new RingGeometry(0.16, 0.2, 40).rotateX(-Math.PI / 2);
    this.ring = new Mesh(ring, new MeshBasicMaterial(look));
    this.object = new Group();
    this.object.add(this.line, this.ring);
    this.object.visible = false;
    this.object.renderOrder = this.line.renderOrder = this.ring.renderOrder = 1000;
    this.spot = null;
  }

  // Throw from a hand onto the floor, y = 0.
  aim(ray) {
    const from = ray.position;
    const speed = new Vector3(0, 0, -1).transformDirection(ray.matrix).multiplyScalar(SPEED);
    const land = (speed.y + Math.sqrt(Math.max(speed.y ** 2 + 2 * FALL * from.y, 0))) / FALL;
    const hits = from.y > 0 && land < TIME;
    const until = hits ? land : TIME;
    const places = this.line.geometry.attributes.position;
    const side = new Vector3(-speed.z, 0, speed.x).setLength(HALF);
    for (let k = 0; k < POINTS; k++) {
      const t = (until * k) / (POINTS - 1);
      const y = from.y + speed.y * t - (FALL * t * t) / 2;
      const [x, z] = [from.x + speed.x * t, from.z + speed.z * t];
      places.setXYZ(2 * k, x - side.x, y, z - side.z);
      places.setXYZ(2 * k + 1, x + side.x, y, z + side.z);
    }
    places.needsUpdate = true;
    this.spot = hits ? from.clone().addScaledVector(speed, land).setY(0) : null;
    this.ring.visible = hits;
    if (hits) this.ring.position.copy(this.spot);
    this.object.visible = true;
  }

  // End aiming; where the throw landed, or null.
  hide() {
    const { spot } = this;
    this.object.visible = false;
    this.spot = null;
    return spot;
  }
}
