// A process of a bot's shards, until its standard input ends: each is @discordjs/ws's, and leases its
// id from the gateway.
//
//     node shards.mjs <gateway's URL> <Discord's gateway URL> <token> <name> <number of shards>
//
// What the library asks its identify throttler for, a permit to IDENTIFY, the gateway gives. What
// happens is printed, a JSON object a line: {"shard", "event", "data"}.

import { REST } from '@discordjs/rest';
import { WebSocketManager, WebSocketShardEvents } from '@discordjs/ws';

import { Link, tell } from './link.mjs';

const [gateway, discord, token, service, count] = process.argv.slice(2);

const GUILDS = 1; // the intents
const LEAVES = 4200; // Discord keeps the session of a shard that closes so
const DO_NOT_RECONNECT = new Set([4004, 4010, 4011, 4012, 4013, 4014]);

// An older permit than this is not relied on. They are good for `permit_ttl_ms`, 5 s where it is not set;
// here it is set to less.
const FRESH_MS = 1300;

const rest = new REST({ api: `${discord.replace('ws:', 'http:')}/api`, version: '10' }).setToken(token);

class Shard {
  #link;
  #lease;
  #session; // as the library keeps it
  #asking = null;
  #permittedAt = -Infinity;
  #manager;

  constructor(link, lease, hasPermit) {
    this.#link = link;
    this.#lease = lease;
    if (hasPermit) this.#permittedAt = performance.now();
    const { shard_id: shardId, shard_count: shardCount, resume } = lease;
    this.#session = resume
      ? { shardId, shardCount, sessionId: resume.session_id, sequence: resume.seq, resumeURL: resume.resume_gateway_url }
      : null;
    this.#manager = new WebSocketManager({
      token,
      rest,
      shardCount,
      shardIds: [shardId],
      intents: GUILDS,
      retrieveSessionInfo: () => this.#session,
      updateSessionInfo: (_, session) => (this.#session = session),
      buildIdentifyThrottler: () => ({ waitForIdentify: (_, signal) => this.#waitForPermit(signal) }),
    });
  }

  /** Returns when it has given its id back, or has lost it. */
  async run() {
    const lost = this.#link.loses(this.#lease);
    const fatal = new Promise((resolve) => this.#listen(resolve));
    this.#manager.connect().catch((error) => tell(this.#lease, 'FAILED', String(error)));
    const end = await Promise.race([lost.then(() => 'lost'), leaves.then(() => 'leaves'), fatal]);
    const session = this.#session;
    if (end === 'lost') {
      await this.#manager.destroy();
    } else if (end === 'leaves') {
      await this.#manager.destroy({ code: LEAVES });
      this.#link.death(this.#lease, null, resumable(session));
    } else {
      this.#link.death(this.#lease, end, undefined);
    }
  }

  #listen(isFatal) {
    this.#manager.on(WebSocketShardEvents.Dispatch, ({ t, d }) => {
      if (t === 'READY') this.#link.state(this.#lease, 'ready', resumable(this.#session));
      if (t === 'RESUMED') this.#link.state(this.#lease, 'resumed', resumable(this.#session));
      tell(this.#lease, t, d.text ?? null);
    });
    this.#manager.on(WebSocketShardEvents.Closed, (code) => {
      tell(this.#lease, 'CLOSED', code);
      if (DO_NOT_RECONNECT.has(code)) isFatal(code);
    });
    for (const event of [WebSocketShardEvents.Error, WebSocketShardEvents.SocketError]) {
      this.#manager.on(event, (error) => tell(this.#lease, 'FAILED', String(error)));
    }
  }

  /** Where the connection that waited is lost, the next one of the shard has the permit. */
  async #waitForPermit(signal) {
    const isFresh = () => performance.now() - this.#permittedAt < FRESH_MS;
    const isLost = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    while (!isFresh()) {
      this.#asking ??= this.#link.lease(this.#lease, true).then(() => {
        this.#permittedAt = performance.now();
        this.#asking = null;
      });
      await Promise.race([this.#asking, isLost]);
    }
    signal.throwIfAborted();
    this.#permittedAt = -Infinity;
    this.#link.state(this.#lease, 'identifying');
  }
}

/** What the gateway keeps for whoever has the id next. */
function resumable(session) {
  return session
    ? { session_id: session.sessionId, seq: session.sequence, resume_gateway_url: session.resumeURL }
    : undefined;
}

/** `claim`: `{}` for any id, and `{shard_id}` for one that the name has. */
async function runShard(link, claim) {
  // It may be that one that it has can resume, which takes no permit; else the throttler asks for one.
  const needsPermit = claim.shard_id === undefined;
  const lease = await Promise.race([link.lease(claim, needsPermit), leaves.then(() => null)]);
  if (lease === null) return;
  tell(lease, 'LEASED', lease.epoch);
  await new Shard(link, lease, needsPermit).run();
}

const leaves = new Promise((resolve) => process.stdin.on('end', resolve).on('data', resolve));
const link = new Link(gateway, service);
const own = await link.open();
const claims = own.map((shard_id) => ({ shard_id }));
while (claims.length < Number(count)) claims.push({});
await Promise.all(claims.map((claim) => runShard(link, claim)));
await link.leave();
process.exit(0);
