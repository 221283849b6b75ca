"""Prompt templates: exact wording, and that text of the row passes through untouched."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.pool import PoolRow
from s2l_jax.data.pool_messages import Message
from s2l_jax.data.prompts import RADIOLOGY_TASK, TEMPLATES, render
from s2l_jax.errors import InputError

ROW = PoolRow(id=1, instruction="Add 2 and 3.", input="", output="5", source="all", original={}, place="a:1")


def test_alpaca_without_input():
    assert render("alpaca", ROW) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd 2 and 3.\n\n### Response:",
        "5",
    )


def test_alpaca_with_input():
    row = dataclasses.replace(ROW, instruction="Add.", input="2 and 3")
    assert render("alpaca", row) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n### Response:",
        "5",
    )


def test_plain():
    assert render("plain", ROW) == ("Add 2 and 3.\n", "5")
    assert render("plain", dataclasses.replace(ROW, input="quickly"))[0] == "Add 2 and 3.\nquickly\n"


def test_radiology_finds_the_findings_with_and_without_a_task():
    bare = dataclasses.replace(ROW, instruction="Lungs are clear.", output="Normal.")
    prompt, response = render("radiology", bare)
    assert prompt.endswith("\n\nFindings:\nLungs are clear.\n\nImpression:")
    assert response == "Normal."
    tasked = dataclasses.replace(bare, instruction="Summarise.", input="Lungs are clear.")
    assert render("radiology", tasked)[0] == ("Summarise.\n\nFindings:\nLungs are clear.\n\nImpression:")


def test_the_official_radiology_template_to_the_letter():
    bare = dataclasses.replace(ROW, instruction="Lungs are clear.", output="Normal.")
    tasked = dataclasses.replace(bare, instruction=RADIOLOGY_TASK, input="Lungs are clear.")
    official = (
        "Below are the findings in a radiology report. Write an impression that diagnostically summarizes "
        "the findings.\n\n ### Findings:\nLungs are clear.\n\n### Inpression:"
    )
    assert render("radiology_official", bare) == render("radiology_official", tasked) == (official, "Normal.")


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=30, deadline=None)
@given(
    instruction=st.text(min_size=1),
    input=st.text(),
    output=st.text(alphabet="{}instructo \n%", min_size=1),
)
def test_text_passes_through_untouched(template, instruction, input, output):
    row = dataclasses.replace(ROW, instruction=instruction, input=input, output=output)
    prompt, response = render(template, row)
    assert response == output
    assert prompt.count(instruction) >= 1
    assert input in prompt
    assert len(prompt) >= len(instruction) + len(input)


def test_braces_in_a_row_are_not_fields():
    row = dataclasses.replace(ROW, instruction="Fill {input} and {0}", input="{instruction}")
    assert "Fill {input} and {0}" in render("alpaca", row)[0]
    assert "### Input:\n{instruction}\n" in render("alpaca", row)[0]


def test_messages_of_one_turn_are_instruction_and_input():
    messages = (Message("system", "Add."), Message("user", "2 and 3"), Message("assistant", "5"))
    row = dataclasses.replace(ROW, instruction="Add.", input="2 and 3")
    for template in TEMPLATES:
        assert render(template, dataclasses.replace(row, messages=messages)) == render(template, row)


def test_unknown_template_names_the_choices():
    with pytest.raises(InputError, match="'alpacca' is not known; choose one of alpaca, plain"):
        render("alpacca", ROW)
