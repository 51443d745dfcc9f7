from reflow import Block, reflow, split_blocks

TEXT = """\
Some words
in a paragraph.

> a quote
> of two lines
- one
- two,
  continued
"""


def test_blocks_are_found():
    assert split_blocks(TEXT) == [
        Block("paragraph", "Some words in a paragraph."),
        Block("quote", "a quote of two lines"),
        Block("item", "one"),
        Block("item", "two, continued"),
    ]


def test_a_wide_text_keeps_one_line_a_block():
    assert reflow(TEXT, 60) == "Some words in a paragraph.\n\n> a quote of two lines\n\n- one\n- two, continued"
