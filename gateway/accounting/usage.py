"""What one call used: the single measurement behind the headers, the metrics and the ledger. The data plane makes it."""

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """`cpu_ns` is CPU time of decode, run (its share of a batch) and encode; the other times are elapsed. `total_ns` is from the
    arrival of the request's head to the encoded answer.
    """

    cpu_ns: int = 0
    decode_ns: int = 0
    encode_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    total_ns: int = 0
    rows: int = 0
    batch_rows: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
