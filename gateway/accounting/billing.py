"""What a platform's steps and its minimum make of a time: the rule behind every bill. Pure, integers only.

The running meter (`gateway.accounting.billedtime`), the audit and reports ask here what is billed beyond a time that is over.
"""

from gateway.contract.prices import Platform

MS = 10**6


def beyond_ns(rule: Platform, age_ns: int) -> int:
    """What is billed beyond the life itself, when it ends at this age: up to the next step, and to the minimum."""
    return stepped_ns(rule, age_ns) - age_ns


def stepped_ns(rule: Platform, length_ns: int) -> int:
    """What a time of this length is billed as when it is over."""
    step_ns = max(1, rule.granularity_ms * MS)
    return max(-(-length_ns // step_ns) * step_ns, rule.minimum_ms * MS)
