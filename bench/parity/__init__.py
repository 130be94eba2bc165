"""Do captions match across runtimes, and where they don't, why: records, replays, causes, golden sets and bisection."""
