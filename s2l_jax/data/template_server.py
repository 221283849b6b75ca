"""The other end of `template_process`: renders chat templates, one request a line, within limits.

Run as a file, by itself: it imports transformers and nothing of s2l_jax.
"""

import json
import os
import resource
import signal
from typing import Any

_MEMORY = 2**31  # bytes of address space; transformers itself takes some 200 MB


def serve() -> None:
    """Answer requests until the other end closes."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that is printed gets between the answers
    from transformers.utils.chat_template_utils import render_jinja_template

    # Profilers ignore this signal, and what is ignored stays so in a child.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for line in requests:
        answers.write(json.dumps(_answer(render_jinja_template, json.loads(line))).encode() + b"\n")
        answers.flush()


def _answer(render: Any, request: dict[str, Any]) -> dict[str, str]:
    # Processor time, as a template cannot sleep. The signal is not caught: it ends C code too.
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    try:
        texts, _ = render(
            conversations=[request["messages"]],
            tools=request["tools"] or None,
            chat_template=request["template"],
            **request["variables"],
        )
        return {"text": texts[0]}
    except (Exception, MemoryError) as error:  # a template is a program: what it raises is not known
        return {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    serve()
