from reflow import reflow


def test_items_hang_below_their_mark():
    text = "- eggs, milk and flour\n- a pan"
    assert reflow(text, 12) == "- eggs, milk\n  and flour\n- a pan"


def test_quotations_keep_their_mark():
    assert reflow("> to be or not to be", 10) == "> to be or\n> not to\n> be"


def test_justified_lines_reach_the_full_width():
    text = "a man may say what he likes about his own house"
    assert reflow(text, 16, is_justified=True) == "a  man  may  say\nwhat   he  likes\nabout   his  own\nhouse"
