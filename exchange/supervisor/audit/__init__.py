"""The auditor's books: an account of all money that is kept from the machines' feeds alone, and compared with theirs.

What the engine says of itself (`Shard.validate`) uses the engine's own sums. Here everything is added up once more, by
other arithmetic and from what the machines told the world: who owns what in each shard, what every open order needs,
what each trade should have cost, and what the ledger sent where.

**The cut.** Money is in one place at any time, and each machine's books are right at each of its own sequences: in the
ledger supply = balances + what is out in shards, in a shard what all accounts own = what came from the ledger. Between
them messages are numbered for life (`exchange.engine.channel`). So nobody need stop for an audit: take each shard at
some sequence, then the ledger at a later moment, and account for the messages by their numbers.

- A shard credits what the ledger granted before. The ledger is taken last, so it must know each grant that a shard has
  credited; one that it does not know is money from nowhere.
- A grant that the shard has not credited is under way while the shard still waits for that answer, or had not sent the
  message yet when it was taken. Else it has vanished.
- What a shard gave back is under way to the ledger while the shard waits to hear that it arrived. What the ledger took
  in, the shard must have given before, unless it had not sent that message yet when it was taken.

Then, for each asset: supply = in the ledger + in all shards + under way.

`shard` and `ledger` keep the accounts of one machine each, `channel` pairs the messages, `cut` adds it all up. None of
them knows Ray, a clock or a file; `auditor` follows the feeds and asks the questions.
"""
