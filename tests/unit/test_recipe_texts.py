"""Labelled texts from files of both kinds, what is refused, and tokenizers made to read like the training data."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.support import smalljobs
from trainers.errors import DataError, SpecError
from trainers.recipes import newsgroups, registry, texts
from trainers.recipes.texts import Texts

TAB = b"Category\tText\nd\tstring\nclass\t\nsci.space\tthe moon\nrec.autos\ta road\n"
CSV = "text,label\n" + "\n".join(f'"ball, number {i}",sport\nmoon {i},space' for i in range(10))


def test_a_tab_file_is_read_after_its_three_lines_of_header():
    assert texts.from_tab(TAB) == Texts(("the moon", "a road"), ("sci.space", "rec.autos"))


@pytest.mark.parametrize("line", [b"sci.space", b"sci.space\t", b"\ttext", b"sci.space\t  "])
def test_a_line_without_label_or_text_is_refused_by_its_number(line):
    with pytest.raises(DataError, match="line 6 of the texts has no label or no text"):
        texts.from_tab(TAB + line + b"\n")


def test_a_csv_file_is_read_by_its_columns_in_any_order():
    read = texts.from_csv(b"\xef\xbb\xbflabel,id,text\r\n" + b'a,1,"x, y"\r\nb,2,z\r\n' * 10, "mine.csv")
    assert read.texts[:2] == ("x, y", "z")
    assert read.labels[:2] == ("a", "b")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column label and no text; its columns are: none"),
        (b"text,kind\na,b\n", "no column label; its columns are: text, kind"),
        (b"text,label\n\xff,a\n", "not a CSV file in UTF-8"),
        (b'text,label\n"a,b\n', "not a CSV file in UTF-8"),
        (b"text,label\nx,a\n,b\n", "row 2 of mine.csv has no text"),
        (b"text,label\nx,a\ny\n", "row 2 of mine.csv has no label"),
        (b"text,label\n" + b"x,a\n" * 20, "needs at least two labels; it has 1 in 20 rows"),
        (b"text,label\n", "needs at least two labels; it has 0 in 0 rows"),
        (b"text,label\n" + b"x,a\n" * 20 + b"y,b\n", "fewer than 10 rows of: b"),
    ],
)
def test_a_csv_file_that_nothing_can_be_learned_from_is_refused(content, says):
    with pytest.raises(DataError, match=says):
        texts.from_csv(content, "mine.csv")


def test_repeated_texts_and_those_of_the_test_are_left_out_and_the_order_stays():
    own = Texts(("a", "b", "a", "c", "d"), ("1", "2", "3", "4", "5"))
    assert own.without(Texts(("c",), ("9",))) == Texts(("a", "b", "d"), ("1", "2", "5"))
    assert own.without(texts.NONE) == Texts(("a", "b", "c", "d"), ("1", "2", "4", "5"))


def test_a_tokenizer_of_letters_reads_a_text_as_its_stripped_form():
    tokenizer = Tokenizer.from_buffer(texts.of_letters_only(smalljobs.tokenizer_json()))
    raw, stripped = (
        tokenizer.encode(text).tokens for text in ("The BALL, 3 goals... is a goal!", "the ball goals is a goal")
    )
    assert raw == stripped
    assert "ball" in raw


def test_a_tokenizer_loses_the_limits_it_ships_with():
    tokenizer = Tokenizer.from_buffer(smalljobs.tokenizer_json())
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=5)
    freed = Tokenizer.from_buffer(texts.without_limits(tokenizer.to_str().encode()))
    assert len(freed.encode("ball " * 20).ids) == 22
    assert len(freed.encode("ball").ids) == 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"length_max": 7}, "from 8 to 512; it is 7"),
        ({"length_max": 513}, "from 8 to 512; it is 513"),
        ({"rows_max": -1}, "must be 0 for all rows"),
        ({"rows": 5}, "no parameter 'rows', did you mean 'rows_max'"),
    ],
)
def test_parameters_out_of_range_are_refused(given, says):
    with pytest.raises(SpecError, match=says):
        registry.job("newsgroups", given)


def test_a_csv_file_of_ones_own_decides_the_classes_and_the_name(tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    job = registry.job("newsgroups", {"csv": str(tmp_path / "mine.csv"), "model": "topics"})
    assert job.model == "topics"
    assert job.parameters["csv"] == "mine.csv"
    assert "Which of 2 labels" in job.description


def test_a_csv_file_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"'absent.csv' cannot be read: No such file"):
        newsgroups.newsgroups(csv="absent.csv")


def test_a_csv_file_is_split_with_every_label_in_each_part(tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    (train, validation, test), (source,), _ = newsgroups._of_csv(str(tmp_path / "mine.csv"))
    assert [len(part) for part in (train, validation, test)] == [14, 2, 4]
    assert all(set(part.labels) == {"sport", "space"} for part in (train, validation, test))
    assert (source.name, source.rows) == ("mine.csv", 20)


def test_rows_are_in_order_of_their_length_with_their_own_labels():
    part = Texts(("the ball of the goal", "moon", "a road"), ("b", "a", "c"))
    split = newsgroups._split(part, ("a", "b", "c"), smalljobs.tokenizer_json(), 10)
    assert split.inputs["attention_mask"].sum(axis=1).tolist() == [3, 4, 7]
    assert split.targets.tolist() == [0, 2, 1]


def test_the_baseline_reads_what_the_network_reads():
    data = smalljobs.text_data()
    answers = newsgroups._baseline(data)
    assert answers.shape == (data.test.rows, 3)
    assert np.mean(answers.argmax(axis=1) == data.test.targets) > 0.95
