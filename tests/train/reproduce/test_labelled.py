"""Files and runs that tables of labelled texts are made from."""

import pytest

from train.reproduce.labelled import main


@pytest.mark.parametrize("arguments", [[], ["layers", "run", "²", "out"], ["layers", "run", "two", "out"], ["texts", "x"]])
def test_what_is_no_call_is_answered_with_how_to_call_it(arguments, capsys):
    assert main(arguments) == 2 and "layers" in capsys.readouterr().err
