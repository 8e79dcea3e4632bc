// A process's connection to the gateway, shared by its shards, and made anew where it is lost.

import WebSocket from 'ws';

const [IDENTIFY, ACCEPT, ERROR] = [0, 1, 20];
const [SHARD_CONNECT, SHARD_ACCEPT, SHARD_DEATH] = [10, 11, 12];
const [SHARD_WAIT, SHARD_STATE, SHARD_LIVE, SHARD_REVOKE] = [30, 31, 32, 33];
const LEAVES_FOR_GOOD = 4000;

// The gateway has not been heard for so long that the ids may be another's.
const LOST_THE_GATEWAY = 3;
const FIRST_PATIENCE_MS = 30_000;
const BETWEEN_TRIES_MS = 100;

export function tell({ shard_id: shard }, event, data) {
  console.log(JSON.stringify({ shard, event, data }));
}

/** While the bot is resharded, one id has two holders. */
const key = ({ shard_id, shard_count }) => `${shard_id}/${shard_count}`;

export class Link {
  #url;
  #service;
  #socket = null;
  #windowMs = FIRST_PATIENCE_MS;
  #asks = []; // each a SHARD_CONNECT without an answer: {claim, identify, resolve}
  #held = new Map(); // by key: {lease, lose, state}, the last SHARD_STATE among them
  #isLeaving = null;

  constructor(url, service) {
    this.#url = url;
    this.#service = service;
  }

  /** Connects, and tells the ids that the name has already. */
  async open() {
    return (await this.#connect()).shards;
  }

  /** Asks for an id; where `identify` says so, with a permit to IDENTIFY. */
  lease({ shard_id, shard_count }, identify) {
    const claim = { shard_id, shard_count };
    return new Promise((resolve) => {
      // Kept: it is asked again where this connection is lost.
      this.#asks.push({ claim, identify, resolve });
      this.#ask(claim, identify);
    });
  }

  /** Resolves when the id is taken away: its session must end. */
  loses(lease) {
    return new Promise((resolve) => (this.#held.get(key(lease)).lose = resolve));
  }

  state({ shard_id, shard_count }, state, resume) {
    const fields = { shard_id, shard_count, state, resume };
    const held = this.#held.get(key(fields));
    if (held === undefined) return; // it has just been lost
    held.state = fields; // a gateway that is killed may not take it in
    this.#send(SHARD_STATE, fields);
  }

  death({ shard_id, shard_count }, close_code, resume) {
    this.#held.delete(key({ shard_id, shard_count }));
    this.#send(SHARD_DEATH, { shard_id, shard_count, close_code, resume });
  }

  /** Says goodbye: whatever it holds still is free at once. */
  async leave() {
    // Its ERROR (there is no such shard) shows that what was sent before has been taken in.
    await new Promise((resolve) => {
      this.#isLeaving = resolve;
      this.#send(SHARD_DEATH, {});
    });
    const closed = new Promise((resolve) => this.#socket.once('close', resolve));
    this.#socket.close(LEAVES_FOR_GOOD);
    await closed;
  }

  /** ACCEPT. Ends the process where the gateway is not there for too long. */
  async #connect() {
    const deadline = performance.now() + this.#windowMs;
    for (;;) {
      try {
        return await this.#tryToConnect();
      } catch (error) {
        if (performance.now() > deadline) {
          console.error(`${this.#service}: ${error}`);
          process.exit(LOST_THE_GATEWAY);
        }
        await new Promise((resolve) => setTimeout(resolve, BETWEEN_TRIES_MS));
      }
    }
  }

  #tryToConnect() {
    const socket = new WebSocket(this.#url, { perMessageDeflate: false });
    return new Promise((resolve, reject) => {
      socket.on('error', reject);
      socket.on('close', (code) => {
        reject(new Error(`closed: ${code}`));
        if (this.#socket === socket) this.#reconnect(code);
      });
      socket.once('open', () => send(socket, this.#service, IDENTIFY, {}));
      socket.once('message', (text) => {
        const answer = JSON.parse(text).d;
        if (answer.opcode !== ACCEPT) return reject(new Error(JSON.stringify(answer)));
        this.#socket = socket;
        this.#windowMs = answer.resume_window_ms;
        socket.on('message', (text) => this.#take(JSON.parse(text)));
        resolve(answer);
      });
    });
  }

  /** The shards go on meanwhile; the gateway is told again what they have and what they wait for. */
  async #reconnect(code) {
    this.#socket = null;
    if (this.#isLeaving) return;
    console.error(`${this.#service}: the gateway is gone: ${code}`);
    const accepted = await this.#connect();
    for (const { lease } of [...this.#held.values()]) {
      if (!accepted.shards.includes(lease.shard_id)) this.#lose(lease, 'ACCEPT does not list it');
    }
    this.#asks = this.#asks.filter((ask) => ask.resolve !== undefined);
    const asked = new Set(this.#asks.map((ask) => key(ask.claim)));
    const held = [...this.#held.values()].map((it) => it.lease).filter((lease) => !asked.has(key(lease)));
    this.#asks.push(...held.map(({ shard_id, shard_count }) => ({ claim: { shard_id, shard_count }, identify: false })));
    // What it has comes first: else the gateway, which takes that for unclaimed, grants it to those that
    // ask for any id.
    const isForAny = (ask) => Number(ask.claim.shard_id === undefined);
    this.#asks.sort((one, other) => isForAny(one) - isForAny(other));
    this.#asks.forEach(({ claim, identify }) => this.#ask(claim, identify));
    for (const { state } of this.#held.values()) if (state) this.#send(SHARD_STATE, state);
  }

  #take({ t, d }) {
    if (t !== 'gateway:opcode') return;
    if (d.opcode === SHARD_ACCEPT) {
      this.#accept(d);
    } else if (d.opcode === SHARD_REVOKE) {
      tell(d, 'REVOKED', d.shard_count);
      this.#lose(d, d.reason);
    } else if (d.opcode === SHARD_LIVE) {
      tell(d, 'LIVE', d.shard_count);
    } else if (d.opcode === ERROR && this.#isLeaving) {
      this.#isLeaving();
    } else if (d.opcode !== SHARD_WAIT) {
      console.error(`${this.#service}: ${JSON.stringify(d)}`);
    }
  }

  #accept(lease) {
    if (!this.#held.has(key(lease))) this.#held.set(key(lease), { lease, lose: () => {} });
    const { shard_id } = lease;
    for (const claim of [lease, { shard_id }, {}]) {
      const index = this.#asks.findIndex((ask) => key(ask.claim) === key(claim));
      if (index >= 0) return this.#asks.splice(index, 1)[0].resolve?.(lease);
    }
  }

  #lose(lost, reason) {
    console.error(`${this.#service}: shard ${key(lost)} is lost: ${reason}`);
    this.#asks = this.#asks.filter((ask) => key(ask.claim) !== key(lost));
    const held = this.#held.get(key(lost));
    this.#held.delete(key(lost));
    held?.lose();
  }

  #ask({ shard_id, shard_count }, identify) {
    const fields = shard_id === undefined ? {} : { shard_id, shard_count, identify };
    this.#send(SHARD_CONNECT, fields);
  }

  /** Without a connection nothing is sent: the next one tells what it takes. */
  #send(opcode, fields) {
    if (this.#socket !== null) send(this.#socket, this.#service, opcode, fields);
  }
}

function send(socket, service, opcode, fields) {
  socket.send(JSON.stringify({ s: service, t: 'gateway:opcode', d: { opcode, ...fields } }));
}
