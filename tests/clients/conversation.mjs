// A conversation with the gateway, held by Node's `ws`: an example and a test.
//
//     npm install ws
//     node conversation.mjs ws://127.0.0.1:7117/gateway
//
// The address may also come as GATEWAY_URL. Prints a line for each step and `ok` at the end; where
// something is not as it should be, all that was sent and came, and the exit code is 1. A gateway
// with a free shard id is all it needs. What is said here is explained in the README.

import assert from 'node:assert/strict';
import { on, once } from 'node:events';
import WebSocket from 'ws';

const [IDENTIFY, ACCEPT, REJECT] = [0, 1, 2];
const [SHARD_CONNECT, SHARD_ACCEPT, SHARD_DEATH, SHARD_WAIT] = [10, 11, 12, 30];
const [ERROR, RECEIPT, WATCH, PRESENCE] = [20, 21, 23, 24];
const LEAVE_FOR_GOOD = 4000;

const WAIT_MS = 10_000; // the longest wait for anything
const GATEWAY = process.argv[2] ?? process.env.GATEWAY_URL;
const transcript = [];
const services = [];

/** A name and a WebSocket. The library answers the gateway's pings by itself. */
class Service {
  constructor(name) {
    this.name = name;
    this.socket = new WebSocket(GATEWAY, { perMessageDeflate: false });
    this.socket.on('error', (error) => transcript.push(`${name}: ${error}`));
    this.messages = on(this.socket, 'message', { close: ['close'] });
    this.opened = once(this.socket, 'open');
    this.opened.catch(() => {}); // seen where it is awaited
    this.closed = new Promise((resolve) => this.socket.once('close', resolve));
    services.push(this);
  }

  /** Says who the service is. The answer is ACCEPT or REJECT. */
  async identify(fields = {}) {
    await within(this.opened, 'open WebSocket');
    this.sendOp(IDENTIFY, fields);
    return (await this.receive()).d;
  }

  send(target, topic, data, more = {}) {
    this.sendMessage(`gateway-proxy:${target}:${topic}`, data, more);
  }

  sendOp(opcode, fields = {}) {
    this.sendMessage('gateway:opcode', { opcode, ...fields });
  }

  sendMessage(topic, data, more = {}) {
    this.sendText(JSON.stringify({ s: this.name, t: topic, d: data, ...more }));
  }

  sendText(text) {
    transcript.push(`${this.name} sends ${text}`);
    this.socket.send(text);
  }

  async receive() {
    return JSON.parse(await this.receiveText());
  }

  /** Waits for an op of the gateway's. Those numbered `skip` may come before it. */
  async receiveOp(opcode, { skip } = {}) {
    for (;;) {
      const { s, t, d } = await this.receive();
      assert.deepEqual([s, t], ['gateway', 'gateway:opcode']);
      if (d.opcode === skip) continue;
      assert.equal(d.opcode, opcode, 'the opcode');
      return d;
    }
  }

  async receiveText() {
    const { value, done } = await within(this.messages.next(), 'message');
    assert.ok(!done, `expected a message for ${this.name}, but its connection has ended`);
    transcript.push(`${this.name} gets ${value[0]}`);
    return value[0].toString();
  }

  /** Waits until the gateway closes the connection, and returns the code. */
  async waitForClose() {
    return within(this.closed, 'close');
  }

  /** Ends the connection without a close frame, as a crash does. */
  drop() {
    this.socket.terminate();
  }

  /** Ends the session: mailbox and shard ids are given up at once. */
  async leave() {
    this.socket.close(LEAVE_FOR_GOOD);
    await within(this.closed, 'close');
  }
}

/** Waits for something, but not for ever. */
async function within(promise, what) {
  let timer;
  const tooLate = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} came within ${WAIT_MS} ms`)), WAIT_MS);
  });
  return Promise.race([promise, tooLate]).finally(() => clearTimeout(timer));
}

function step(line) {
  transcript.push(`--- ${line}`);
  console.log(`node: ${line}`);
}

async function converse() {
  const [backendName, shardName] = [`node-backend-${process.pid}`, `node-shard-${process.pid}`];

  const backend = new Service(backendName);
  let accept = await backend.identify({ receipts: true });
  assert.deepEqual([accept.opcode, accept.service], [ACCEPT, backendName]);
  assert.deepEqual([accept.resumed, accept.shards, accept.version], [false, [], 1]);
  assert.ok(accept.session.length >= 22, 'a session of 128 bits or more');
  for (const setting of ['heartbeat_ms', 'resume_window_ms', 'max_message_bytes']) {
    assert.ok(accept[setting] > 0, setting);
  }
  let shard = new Service(shardName);
  assert.equal((await shard.identify()).opcode, ACCEPT);
  step('two services are accepted');

  const double = new Service(backendName);
  const reject = await double.identify();
  assert.deepEqual([reject.opcode, reject.code], [REJECT, 'already_connected']);
  assert.ok(Number.isInteger(reject.retry_after_ms), 'retry_after_ms');
  assert.equal(await double.waitForClose(), 4003);
  step('a second service of the same name is refused');

  const exact = String.raw`{"z": 1.50, "a":-0e+00,"a":12345678901234567890, "é☃":"\u00e9\/\ud83d\ude00\ud800"  ,"":[{ }]}`;
  shard.sendText(`{"s":"${shardName}","t":"gateway-proxy:${backendName}:a:b:c","d":${exact}}`);
  const text = await backend.receiveText();
  const came = JSON.parse(text);
  assert.deepEqual([came.s, came.t], [shardName, 'a:b:c']);
  assert.ok(text.includes(exact), 'd is what was sent, byte for byte');
  backend.send(came.s, 'reply', { to: came.t });
  assert.deepEqual(await shard.receive(), { s: backendName, t: 'reply', d: { to: 'a:b:c' } });
  const large = '☃'.repeat(accept.max_message_bytes / 4);
  shard.send(backendName, 'large', large);
  assert.ok((await backend.receive()).d === large, 'a large message is what was sent');
  step('messages pass both ways, unaltered');

  shard.send('nobody-of-that-name', 'x:y', null, { n: 'my-7' });
  const error = await shard.receiveOp(ERROR);
  assert.equal(error.code, 'no_such_service');
  assert.deepEqual([error.t, error.n], ['gateway-proxy:nobody-of-that-name:x:y', 'my-7']);
  step('what cannot be delivered comes back');

  shard.sendOp(SHARD_CONNECT);
  const lease = await shard.receiveOp(SHARD_ACCEPT, { skip: SHARD_WAIT });
  assert.ok(lease.shard_id >= 0 && lease.shard_id < lease.shard_count, 'the id is below shard_count');
  shard.sendOp(SHARD_DEATH, { shard_id: lease.shard_id });
  shard.sendOp(SHARD_CONNECT);
  const again = await shard.receiveOp(SHARD_ACCEPT, { skip: SHARD_WAIT });
  assert.equal(again.shard_id, lease.shard_id);
  assert.ok(again.epoch > lease.epoch, 'the epoch has grown');
  step('a shard id is leased, given back and leased again');

  backend.sendOp(WATCH, { services: shardName });
  shard.drop();
  while ((await backend.receiveOp(PRESENCE)).event !== 'away');
  const numbers = Array.from({ length: 200 }, (_, number) => number);
  for (const number of numbers) backend.send(shardName, 'missed', number, { n: number });
  for (const number of numbers) assert.equal((await backend.receiveOp(RECEIPT)).n, number, 'the receipts');
  shard = new Service(shardName);
  accept = await shard.identify();
  assert.equal(accept.opcode, ACCEPT);
  assert.deepEqual([accept.resumed, accept.shards], [true, [lease.shard_id]]);
  for (const number of numbers) assert.equal((await shard.receive()).d, number, 'what was missed');
  backend.send(shardName, 'after', 'all');
  assert.deepEqual(await shard.receive(), { s: backendName, t: 'after', d: 'all' });
  step('a service that was away gets all that it missed, in order');
}

try {
  await converse();
  step('ok');
} catch (error) {
  for (const line of transcript) console.error(line.slice(0, 1000));
  console.error(error);
  process.exitCode = 1;
} finally {
  await Promise.allSettled(services.map((service) => service.leave()));
}
