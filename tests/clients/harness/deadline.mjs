// Waiting for a condition with a deadline, which is the only way these tests wait: nothing here sleeps for a guessed time.

/** Resolves with the first truthy value of `condition`; rejects after `ms` with what was awaited and what `seen` says by then. */
export async function until(what, condition, { ms = 30_000, seen = () => '' } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms / 1000} s: ${what}${seen() ? ` (${seen()})` : ''}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Throws `message` unless `condition` holds. */
export function check(condition, message) {
  if (!condition) throw new Error(message);
}
