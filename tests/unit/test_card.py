"""What a person reads on a model card: one candidate a line, why a gate passed, numbers with their thousands."""

import msgspec

from gateway.contract.manifest import Gate
from tests.support import models
from trainers.card import card


def test_the_choice_is_a_list_of_candidates_and_a_gate_says_why():
    plain, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.mlp_graph()})
    gate = Gate("saturation", "fp32", passed=True, measured=0.02, limit=0, detail="never on this CPU")
    choice = "fp32 stays: fp32 takes 11 us; int8 18 us, passes every gate; static 12 us, fails"
    text = card(msgspec.structs.replace(plain, choice=choice, gates=(gate,)), "by time", {})
    assert "\nfp32 stays: fp32 takes 11 us\n\n- int8 18 us, passes every gate\n- static 12 us, fails\n" in text
    assert "| fp32 | saturation | 0.02 | 0 | yes | never on this CPU |" in text
    assert f"| {plain.file(plain.variants[0].file).size:,} |" in text
