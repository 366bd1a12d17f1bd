"""What onnxruntime's exceptions say, in one sentence that may be shown: no path of ours or of its source, no caller's value.

It raises classes of its own and bare RuntimeError alike, so the text is all there is.
"""

import re
import traceback

SENTENCE_MAX = 300
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING = re.compile(r"Load model from .*? failed:\s*")
_SOURCE = re.compile(r"[\w./-]+\.(?:cc|h|cpp):\d+ ")
_PATH = re.compile(r"(?<![\w.])(?:\.{0,2}/)[^\s'\",;:]+")
_IN_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: (.*)")
_VALUE = re.compile(r"-?\d[\d.eE+-]*|\"[^\"]*\"|'[^']*'")
_NO_MEMORY = ("Available memory of", "Failed to allocate memory", "std::bad_alloc", "bad allocation")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused: by the arena's limit, by the limit of a build, or by the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def let_go(error: BaseException | None) -> None:
    """Drop what the frames hold through which this error and its causes came, and keep the error.

    A refused load is remembered, and is part of a cycle with the tasks that waited for it. Its frames hold the session: 40 refused
    builds of a graph that folds into 1 GB kept 1.2 GB until the garbage collector came by.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def reason(error: BaseException, *, has_values: bool = False) -> str:
    """The first line, cleaned. With `has_values` the failure came from running a caller's rows: numbers and quoted text inside the
    operator's message may be theirs and become `#`.
    """
    lines = str(error).strip().splitlines()
    text = _CODE.sub("", lines[0] if lines else type(error).__name__)
    text = _LOADING.sub("", text)
    if found := _IN_NODE.search(text):
        operator, name, message = found.groups()
        message = _clean(message)
        where = f"its operator {operator} '{name}'" if name else f"its operator {operator}"
        text = f"{where} failed: {_VALUE.sub('#', message) if has_values else message}"
    return _clean(text)[:SENTENCE_MAX].strip() or type(error).__name__


def _clean(text: str) -> str:
    """Without where in onnxruntime's source it was raised, and without paths."""
    if found := _SOURCE.search(text):
        text = text[: found.start()] + _after_function(text[found.end() :])
    return _PATH.sub("(path)", text).strip()


def _after_function(text: str) -> str:
    """What follows `void scope::Name(const T&, ...) `, or the bare `Name ` of a function."""
    opening = text.find("(")
    if "::" not in text[: max(opening, 0)]:
        return text.partition(" ")[2]
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return text[at + 1 :]
    return text
