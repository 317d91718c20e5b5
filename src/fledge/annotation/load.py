"""Studies from files: the public tweets under five instruments, and one's own long tables.

Texts are read into memory where a model needs them, and nowhere else: nothing in this room writes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fledge.annotation.frame import KEYS, Frame, Study, check_frame, pandas, split_items
from fledge.core.errors import DataError, need

FILES = {"train": "full_train_s.csv", "test": "full_test_s.csv"}
"""Split → file of the public analysis set (Kern et al. 2023)."""
TWEET_CONSTRUCTS = {"hate.speech": "hate_speech", "offensive.language": "offensive_language"}
_TWEET_COLUMNS = ("tweet.id", "id", "version", "batch.tweet", *TWEET_CONSTRUCTS, "tweet_hashed")


def load_study(path: Path | str, *, test_frac: float = 0.25, seed: int = 0) -> Study:
    """The study at a path: a folder with the public tweets, or a long table (`.csv`, `.parquet`, `.jsonl`).

    Args:
        path: folder or file. A long table has the columns of `fledge.annotation.frame`.
        test_frac: share of items to test on, where the table has no column `split`.
        seed: of that division.

    Raises:
        DataError: nothing is there, or it is in no format that is known.
    """
    path = Path(path)
    if path.is_dir():
        return load_tweets(path)
    study = Study.of(read_long(path), path.stem)
    return study if study.split else split_items(study, test_frac, seed)


def read_long(path: Path | str) -> Frame:
    """A long table from a `.csv`, `.parquet` or `.jsonl` file, as it stands there.

    Raises:
        DataError: there is no such file, or its ending is none of these.
    """
    path, pd = Path(path), pandas()
    readers = {
        ".csv": pd.read_csv,
        ".parquet": lambda p: need("pyarrow", "annotation") and pd.read_parquet(p),
        ".jsonl": lambda p: pd.read_json(p, lines=True),
    }
    if not path.exists():
        raise DataError(f"There is no {path}. Name a folder with {' and '.join(FILES.values())}, or a long table.")
    if path.suffix not in readers:
        raise DataError(f"{path} ends in '{path.suffix}'; {', '.join(readers)} can be read. Convert it first.")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}. Export it again.") from None


def load_tweets(folder: Path | str) -> Study:
    """3,000 tweets under five instruments: 44,900 rows of 917 annotators, two constructs, the published split.

    A construct that a row does not answer has the code `dropped_out`: it is missing only where it comes second and
    the annotator had left (in D and E).

    Raises:
        DataError: a file or column is missing.

    Reference: Kern, Eckman, Beck, Chew, Ma, Kreuter, "Annotation Sensitivity", Findings of EMNLP 2023.
    """
    pd, parts = pandas(), []
    for split, name in FILES.items():
        path = Path(folder) / name
        if not path.exists():
            raise DataError(
                f"There is no {path}. The public analysis set has {' and '.join(FILES.values())}: point to its folder."
            )
        table: Any = pd.read_csv(path)
        lacking = [column for column in _TWEET_COLUMNS if column not in table.columns]
        if lacking:
            raise DataError(f"{path} has no column {', '.join(lacking)}. Download the file again.")
        parts.append(table.assign(split=split))
    wide = pd.concat(parts, ignore_index=True)
    if both := set(parts[0]["tweet.id"]) & set(parts[1]["tweet.id"]):
        raise DataError(f"{len(both)} tweets are in both files, so models would be tested on their training data.")
    wide = wide.rename(columns={"tweet.id": "item", "id": "annotator", "version": "condition"})
    first = wide.drop_duplicates("item").set_index("item")
    wide["position"] = wide["batch.tweet"].str[1:].astype(int)
    long = wide.melt(
        ["item", "annotator", "condition", "position"], list(TWEET_CONSTRUCTS), "construct", "value", ignore_index=True
    )
    long["construct"] = long["construct"].map(TWEET_CONSTRUCTS)
    long["missing_code"] = ""
    long.loc[long["value"].isna(), "missing_code"] = "dropped_out"
    frame = check_frame(long[[*KEYS, "value", "missing_code", "position"]])
    return Study(frame, first["tweet_hashed"].to_dict(), first["split"].to_dict(), "tweets")
