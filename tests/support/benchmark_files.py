"""The files of the six benchmarks, made up in the schemas of the published ones."""

SIX = ("gsm8k", "math", "numglue", "svamp", "mathematics", "simuleq")
FILES = {
    "gsm8k.jsonl": [
        {"question": f"What is {n} + {n}?", "answer": f"{2 * n}\n#### {2 * n}"} for n in range(5)
    ],
    "math.jsonl": [
        {
            "problem": f"Half of ${n}$?",
            "level": "Level 2" if n > 1 else "Level 1",
            "type": "Algebra",
            "solution": rf"It is $\boxed{{\frac{{{n}}}{{2}}}}$.",
        }
        for n in (1, 3, 5)
    ],
    "numglue.json": [
        {"question": "Which? \nAnswer Choices: (A) wood (B) ice", "answer": "B", "type": "Type_3"},
        {"question": "12 and 5 are _____", "answer": 17, "type": "Type_4"},
    ],
    "svamp.json": [
        {
            "ID": "1",
            "Body": "Tom had 8 figs",
            "Question": "And?",
            "Equation": "8",
            "Answer": 8.0,
            "Type": "Sum",
        }
    ],
    "mathematics.json": [{"question": "List the prime factors of 12.", "answer": "[2, 3]"}],
    "simuleq.json": [{"question": "x + y = 5 and x - y = 1. What are they?", "answer": "3"}],
}
