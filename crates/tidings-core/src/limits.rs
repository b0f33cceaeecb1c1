//! Every bound of the hub, once, with the reason beside it (table N-40 of the HTTP interface).
//!
//! A bound that can be set by an operator has its default here and, where a highest allowed value exists, that value too.
//! This file knows numbers only: not where they are read from, nor what happens to a request that breaks one.

/// Data of one event after parsing, in bytes. One event must fit comfortably into every reader's memory; N-40.
pub const EVENT_DATA: usize = 1 << 20;
/// The highest value [`EVENT_DATA`] may be set to: chunk lengths and pinned events are kept in 32 bits with room to spare.
pub const EVENT_DATA_MAX: usize = 16 << 20;
/// Events larger than this are counted in a metric: many consumers cap an event at 64 KiB (S-45).
pub const EVENT_DATA_LARGE: usize = 64 << 10;
/// Body of one publish request on the native routes, in bytes; a batch of many events has to fit; N-40.
pub const PUBLISH_BODY: usize = 16 << 20;
/// Body of one request on the Mercure path, in bytes: one event, or a long list of matchers; N-40, M-312.
pub const MERCURE_BODY: usize = 1 << 20;
/// A topic, in bytes: it has to fit into a URL that proxies pass on; N-40.
pub const TOPIC: usize = 2_048;
/// A publisher's event id, in bytes: it comes back in a request header on every reconnect; N-40.
pub const EVENT_ID: usize = 512;
/// An event type, in bytes; N-40.
pub const EVENT_TYPE: usize = 128;
/// The largest `retry` in milliseconds (2^31 - 1): what every client holds in a signed 32-bit integer; N-1a.
pub const RETRY_MS: u32 = i32::MAX as u32;
/// Topics of one event (canonical and alternates) on the native routes; N-40.
pub const TOPICS_PER_EVENT: usize = 100;
/// The same on the Mercure path; what the type [`crate::Event`] itself allows; N-40.
pub const TOPICS_PER_EVENT_MAX: usize = 1_000;
/// Events of one append that a publisher sends as an array: far under what the window holds, so that an append never evicts itself.
pub const BATCH_EVENTS: usize = 10_000;
/// Bytes of ids in the answer to a stream of events (N-3): they are kept until the body ends. About 620,000 minted ids.
pub const ANSWER_IDS: usize = 16 << 20;
/// A key under which a request is published once, in bytes: a UUID or a digest with room for a name before it (N-6). Kept as a digest.
pub const IDEMPOTENCY_KEY: usize = 256;
/// Keys that a store remembers, the newest; N-6. Each costs [`IDEMPOTENCY_KEY_COST`], so that they are at most 80 MB.
pub const IDEMPOTENCY_KEYS: usize = 1_000_000;
/// The most that may be set: 8 GB of memory.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000_000;
/// Bytes of memory that a remembered key costs, whatever it is and whatever was published with it: digests of key and request, number and time
/// are 64, its place in the table and the room to grow are the rest. Held by a test. On disk it takes 48 in its append and 64 in a file of keys.
pub const IDEMPOTENCY_KEY_COST: usize = 80;
/// Milliseconds for which a key counts: who retries for longer than a day has lost more than an answer; N-6.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;
/// Matchers of one subscription on the native routes; N-40.
pub const MATCHERS: usize = 100;
/// The most matchers any door may allow; N-40, M-312.
pub const MATCHERS_MAX: usize = 1_000;
/// A URI Template or URL Pattern, in bytes; M-23, M-312.
pub const PATTERN: usize = 4_096;
/// The automata of one URL pattern, in bytes, and about four times that while it is compiled: what needs more is refused. Ordinary
/// patterns take under two thousand.
pub const PATTERN_AUTOMATA: usize = 32 << 10;
/// The compiled patterns and templates of one connection, in bytes: those it asks for and those of its token, as often as they are written
/// there. Ordinary ones take under five thousand each; N-40, M-23, M-79.
pub const PATTERNS: usize = 1 << 20;
/// Distinct URL patterns of a hub that are in use at once, in subscriptions and grants: M-23, M-79.
pub const URL_PATTERNS: usize = 10_000;
/// A cursor as a client sends it, in bytes: the longest publisher's id, percent-encoded, with room; longer is an unknown id (S-19).
pub const CURSOR: usize = 4_096;

/// A token, in bytes: it has to fit into a request head beside the rest; M-79.
pub const TOKEN: usize = 48 << 10;
/// Entries of `authorization_details` in one token; M-79, M-312.
pub const TOKEN_DETAILS: usize = 100;
/// Topics in all of those entries together; M-79, M-312.
pub const TOKEN_TOPICS: usize = 100;
/// Selectors in one claim of a token of dialect 7; M-312.
pub const TOKEN_SELECTORS: usize = 1_000;
/// A shared secret is at least as long as the hash it is used with, in bytes; M-70.
pub const SECRET_MIN: usize = 32;
/// Keys that are tried for one token, those with its `kid` first: a forged token costs no more signature checks than this.
pub const TOKEN_KEYS_TRIED: usize = 8;
/// Verified tokens that are remembered; each costs about two kilobytes beside its text; M-412.
pub const TOKEN_CACHE: usize = 16_384;
/// Bytes of tokens that are remembered; what is known of a token grows with its length; M-412.
pub const TOKEN_CACHE_BYTES: usize = 32 << 20;
/// How long a token without an end is remembered; milliseconds; M-412.
pub const TOKEN_CACHE_MS: u64 = 5 * 60_000;
/// Fetching a set of keys takes at most this long; milliseconds; M-411.
pub const KEY_SET_FETCH_MS: u64 = 5_000;
/// A set of keys, in bytes; M-411.
pub const KEY_SET_BYTES: usize = 1 << 20;
/// Keys of one set; M-411.
pub const KEY_SET_KEYS: usize = 100;
/// A set of keys is fetched again after what `Cache-Control` says, within these bounds; milliseconds; M-411.
pub const KEY_SET_AGE_MS: (u64, u64) = (5 * 60_000, 24 * 3_600_000);
/// A token with an unknown `kid` has the set fetched again at most once in this time; milliseconds; M-411.
pub const KEY_SET_ASK_MS: u64 = 60_000;
/// Before a set has come for the first time it is asked for this often; milliseconds.
pub const KEY_SET_RETRY_MS: u64 = 5_000;
/// A set that cannot be fetched again serves this much longer than it should; milliseconds; M-411.
pub const KEY_SET_STALE_MS: u64 = 24 * 3_600_000;
/// Redirects of a key set's URL that are followed, all within its origin; M-411.
pub const KEY_SET_REDIRECTS: usize = 3;

/// A request head, in bytes; N-40.
pub const REQUEST_HEAD: usize = 64 << 10;
/// Header fields of a request; N-40.
pub const REQUEST_FIELDS: usize = 100;
/// A request head is complete this long after its first byte, or the answer is 408; in milliseconds; N-40.
pub const REQUEST_HEAD_MS: u64 = 10_000;
/// The first byte of a request body comes within this time; in milliseconds; N-40.
pub const REQUEST_BODY_MS: u64 = 10_000;
/// A request body keeps up at least this rate, averaged over [`REQUEST_BODY_MS`]; bytes per second; N-40.
pub const REQUEST_BODY_RATE: u64 = 1_024;
/// A kept-alive connection with no request under way is closed after this time; milliseconds; N-40.
pub const KEEP_ALIVE_MS: u64 = 60_000;
/// Request heads being parsed at once: each holds about 18 KiB of buffers while it is parsed, so 4,096 are about 72 MiB.
pub const HEADS_IN_FLIGHT: usize = 4_096;
/// HTTP/2 streams of one connection when clients connect directly; N-40, S-48.
pub const H2_STREAMS: u32 = 250;

/// A heartbeat comment follows the last write after this time; milliseconds. Below every proxy's idle time-out (S-25); N-40.
pub const HEARTBEAT_MS: u64 = 15_000;
/// Lower and upper end of the random `retry` told to each connection, in milliseconds (S-41); N-40.
pub const RETRY_RANGE_MS: (u32, u32) = (2_000, 5_000);
/// Lower and upper end of the random `retry` of a soft refusal, in milliseconds: long enough to let an overload pass (N-16).
pub const RETRY_REFUSED_MS: (u32, u32) = (15_000, 60_000);
/// Maximum age of a stream in milliseconds, spread by [`MAX_AGE_SPREAD_PERCENT`]; N-40.
pub const MAX_AGE_MS: u64 = 30 * 60_000;
/// Spread of the maximum age, so that streams opened together do not end together; N-40.
pub const MAX_AGE_SPREAD_PERCENT: u64 = 20;
/// A connection that takes no byte for this long while some wait is closed; milliseconds (S-28); N-40.
pub const STALLED_WRITE_MS: u64 = 10_000;

/// A client that ends its half of the connection this soon after its request may have sent it with the request, and reads on; later it
/// is leaving. Milliseconds.
pub const HALF_CLOSE_MS: u64 = 1_000;

/// How far a reader that was live may fall behind the head, in bytes of encoded events; N-40.
pub const LAG_BYTES: u64 = 16 << 20;
/// The same in events; N-40.
pub const LAG_EVENTS: u64 = 100_000;
/// The same in milliseconds; N-40.
pub const LAG_MS: u64 = 60_000;
/// Bytes of memory that events kept there may take, with everything that belongs to them; N-40.
pub const WINDOW_BYTES: usize = 64 << 20;
/// Events kept in memory; N-40.
pub const WINDOW_EVENTS: usize = 100_000;
/// Distinct audiences (sets of topics) remembered after their events were evicted from a memory store: about 16 MiB at the most with
/// topics of ordinary length. Beyond it the oldest are forgotten and cursors from before them are answered conservatively.
pub const EVICTED_AUDIENCES: usize = 16_384;
/// Bytes of topics in those audiences, for topics of extraordinary length.
pub const EVICTED_BYTES: usize = 16 << 20;

/// Bytes of events that wait for a durable store to write them (one append may exceed it alone); further publishes are refused with 503.
pub const STORE_QUEUE_BYTES: usize = 64 << 20;

/// Files of the log on disk that stay open for the next reader: a segment and its index each, so questions about the newest four gigabytes
/// open nothing.
pub const LOG_OPEN_FILES: usize = 128;
/// Checked pages of indexes kept for the next reader, 2 MiB: the places that readers of a hundred segments ask for.
pub const INDEX_PAGES: usize = 512;

/// Bytes of stored events that lie apart from each other, kept for the next reader: each of them is a read, and they are what a rare topic
/// has. A hundred events of some thirty such topics.
pub const APART_BYTES: usize = 1 << 20;

/// Events a shard takes at once.
pub const TAKEN_EVENTS: usize = 1_024;
/// Bytes a shard takes at once (one event may exceed it alone).
pub const TAKEN_BYTES: usize = 4 << 20;
/// Bytes merged into one write of a live feed: beyond this a larger write is no cheaper per byte; measured.
pub const FRAME_BYTES: usize = 64 << 10;
/// Bytes merged into one frame of an HTTP body: larger frames only wait in the HTTP library's buffers.
pub const BODY_FRAME_BYTES: usize = 16 << 10;
/// Connections that a shard is given in a row before the next shard has its turn, once each has as many. What the kernel keeps of connections accepted one after
/// another lies side by side; a shard that wrote to every other one would pay for the memory of its neighbours' (8 % of a delivery).
pub const SHARD_RUN: usize = 64;
/// Members of one feed that are visited before the members of another have their turn.
pub const SWEEP_VISITS: usize = 256;
/// After a round through the members of a feed the next one begins so much later for each write of it, in microseconds: about what a write
/// costs, so that no more than half of a core is spent on writes that later ones could have carried. (Fewer than 250 members are visited in
/// less than the clock's millisecond, and never wait.)
pub const REST_PER_WRITE_US: u64 = 4;
/// In a round that follows on another the rest is taken in parts, after so many writes each: readers on the same machine then find the time
/// to read while the round goes on.
pub const WRITES_BETWEEN_RESTS: u64 = 1_024;
/// No rest is longer than this; milliseconds.
pub const SWEEP_REST_MS: u64 = 50;
/// Sweeps that are over whose room a shard keeps for the next.
pub const SPARE_SWEEPS: usize = 64;
/// Bytes of the buffer that small events of one append share. Whoever holds one of them holds the others: no more than a merged frame.
pub const SHARED_BUFFER: usize = BODY_FRAME_BYTES;
/// Records a shard looks at for one reader that is behind before it turns to the next one (most of them may not match).
pub const SCAN_RECORDS: usize = 1_024;
/// How far the head may be ahead of the slowest shard before a new append waits, as a fraction of the window in events and in bytes, and
/// the most that one batch may hold. Under half of the window, so that both together leave every shard its place in it (section "A published event" of ARCHITECTURE.md).
pub const SHARD_LEAD: (usize, usize) = (2, 5);
/// How long an append waits for the slowest shard before it is refused with 503; milliseconds.
pub const SHARD_LEAD_MS: u64 = 5_000;
/// Page requests of one shard under way at once: pages are at most [`PAGE_BYTES`], so this bounds the memory of a reconnect storm.
pub const PAGES_IN_FLIGHT: usize = 64;
/// Pages that a shard is given out of the store's memory in one turn; each takes some tens of microseconds, and others wait meanwhile.
pub const PAGES_AT_ONCE: usize = 16;
/// Bytes of events in one page (one event may exceed it alone).
pub const PAGE_BYTES: usize = 256 << 10;
/// Events in one page.
pub const PAGE_EVENTS: usize = 1_024;
/// Stored events looked at for one page, so that a page for a rare topic comes back in bounded time with `covered_through` advanced.
pub const PAGE_SCAN: usize = 16_384;
/// The most of its newest events that a reader may begin with (`last`): the place of each is looked for before the stream begins.
pub const LAST_EVENTS: usize = 10_000;
/// Stored events looked at for that, those that cannot match left out where there is an index. A reader whose rights or topics fit so few
/// of them begins where the looking ended.
pub const LAST_SCAN: usize = 100_000;
/// Subscriptions waiting to be taken over by one shard; further ones wait in their request.
pub const SHARD_INBOX: usize = 1_024;
/// Counters by which a shard says what its subscribers ask for, 256 KiB: with as many topics as that every third publish of something
/// nobody reads would wake the shard for nothing.
pub const INTEREST_COUNTS: usize = 1 << 16;
/// How far a shard that nobody wakes may fall behind, as a fraction of how far the head may run ahead of it.
pub const SLEEPING_LAG: usize = 4;
/// A coarse tick visits this fraction of a shard's table: heartbeats, ages and stalls are checked once per so many ticks.
pub const TICK_SLICES: usize = 32;
/// Milliseconds between two ticks of a shard.
pub const TICK_MS: u64 = 50;

/// Bytes that the disk log keeps; N-40.
pub const RETENTION_BYTES: u64 = 1 << 30;
/// Milliseconds that the disk log keeps events; N-40.
pub const RETENTION_MS: u64 = 24 * 3_600_000;
/// Bytes that the events of presence may take, and milliseconds they are kept: they are many and soon of no use, so they must push out
/// nothing else (M-410).
pub const PRESENCE_BYTES: u64 = 64 << 20;
/// See [`PRESENCE_BYTES`].
pub const PRESENCE_MS: u64 = 10 * 60_000;
/// Events that a store keeps for ever because they are the latest of their topic and type (Z-30): what each of them needs in memory, some
/// 300 bytes, must stay under 32 MiB. Beyond it those that changed longest ago are kept like any other event.
pub const LATEST_EVENTS: usize = 100_000;
/// Bytes of those events, a quarter of [`RETENTION_BYTES`]: they are beyond what retention may take back.
pub const LATEST_BYTES: u64 = RETENTION_BYTES / 4;
/// Every class of retention but the first remembers this fraction of [`EVICTED_AUDIENCES`] and [`EVICTED_BYTES`]: presence alone has a topic
/// per connection, and what it forgets concerns nobody but its own readers.
pub const EVICTED_OTHERS: usize = 16;
/// Bytes a second that are read and written to rewrite segments of the disk log of which retention keeps less than half: a segment takes some
/// seconds, and a disk that publishers wait for has most of its time for them.
pub const REWRITTEN_BYTES: u64 = 16 << 20;
/// What the disk log may take beyond all that its classes may, as a fraction of that, while segments are rewritten in which little is dead: with
/// none of it each byte that comes back could cost the rewriting of a whole segment.
pub const LOG_OVER: u64 = 8;
/// Milliseconds that a publish waits at the most for each new segment of a disk log that takes more than that, so that rewriting keeps up with
/// publishers. Enough to rewrite many segments; a publisher that waits longer may give up.
pub const LOG_ROOM_MS: u64 = 5_000;
/// Bytes of one segment of the disk log, a sixteenth of what is kept: retention removes whole segments.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of the subscriptions that presence tells of, with what their connections cost for it: half a million with matchers of ordinary
/// length. Further connections are refused.
pub const PRESENCE_REGISTER_BYTES: usize = 256 << 20;
/// Events about subscriptions in one append.
pub const PRESENCE_APPEND: usize = 512;
/// Bytes of them in one append (one may exceed it alone).
pub const PRESENCE_APPEND_BYTES: usize = 1 << 20;
/// Subscriptions on one page of the subscription API.
pub const PRESENCE_PAGE: usize = 1_000;
/// Bytes of matchers and payloads on one page (the last may exceed it).
pub const PRESENCE_PAGE_BYTES: usize = 1 << 20;
/// How long draining waits for the events that tell that everybody has gone; milliseconds.
pub const PRESENCE_FLUSH_MS: u64 = 2_000;

/// Draining spreads the ends of streams over this time; milliseconds; N-40.
pub const DRAIN_SPREAD_MS: u64 = 30_000;
/// Draining ends at the latest after this time; milliseconds; N-40.
pub const DRAIN_HARD_MS: u64 = 35_000;
/// Topics on one page of `GET /topics`.
pub const TOPICS_PAGE: usize = 1_000;

// Relations between bounds that other code relies on.
const _: () = assert!(TOKEN < REQUEST_HEAD);
const _: () = assert!(EVENT_DATA <= EVENT_DATA_MAX);
const _: () = assert!(BATCH_EVENTS < WINDOW_EVENTS / SHARD_LEAD.1 * SHARD_LEAD.0);
const _: () = assert!(SHARD_LEAD.0 * 2 < SHARD_LEAD.1);
const _: () = assert!(TAKEN_EVENTS < WINDOW_EVENTS / SHARD_LEAD.1 * SHARD_LEAD.0);
const _: () = assert!(BODY_FRAME_BYTES <= FRAME_BYTES);
const _: () = assert!(LAG_BYTES <= WINDOW_BYTES as u64 && LAG_EVENTS <= WINDOW_EVENTS as u64);
const _: () = assert!(TOPICS_PER_EVENT <= TOPICS_PER_EVENT_MAX && MATCHERS <= MATCHERS_MAX);
