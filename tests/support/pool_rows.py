"""A small pool with what is easily lost in reading, and how tests write and compare one."""

import json

ROWS = [
    {"source": "sums", "instruction": "1 + 1", "output": "2"},
    {"source": "sums", "instruction": "Naïve\u2028add", "input": "2, 3", "output": "5\n→ five"},
    {"source": "", "instruction": "Copy", "input": "", "output": " x "},
    {"source": "sums", "instruction": "1 + 1", "output": "2"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def contents(rows):
    return [(row.id, row.instruction, row.input, row.output, row.source) for row in rows]
