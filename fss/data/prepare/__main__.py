"""Converts a data set's official archives to the layout that its reader expects. A second run resumes the work.

python -m fss.data.prepare pascal5i --root DIR --archives DOWNLOADS
python -m fss.data.prepare coco20i --root DIR --year 2017
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from fss.data.parallel import cores
from fss.display.shown import shown
from fss.files import lock


def main() -> int:
    """Prepares one data set and prints a summary."""
    parser = argparse.ArgumentParser(
        prog="python -m fss.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=("pascal5i", "coco20i", "isic", "deepglobe", "chestxray", "suim"))
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set; created if missing")
    parser.add_argument("--archives", type=Path, help="folder with the downloaded archives; default: --root")
    parser.add_argument("--download", action="store_true", help="download missing archives")
    parser.add_argument("--workers", type=int, default=cores(), help="processes; default: %(default)s, all cores")
    coco = parser.add_argument_group("coco20i")
    coco.add_argument("--year", type=int, default=2014, choices=(2014, 2017), help="default: %(default)s")
    coco.add_argument("--crowd", choices=("include", "ignore"), default="include", help="default: %(default)s")
    coco.add_argument("--sets", nargs="+", default=["train", "val"], help="default: train val")
    given = parser.parse_args()
    from fss.data.prepare.chestxray import prepare_chestxray  # these bring SciPy, which --help need not wait for
    from fss.data.prepare.coco import prepare_coco
    from fss.data.prepare.cross_domain import prepare_deepglobe, prepare_isic
    from fss.data.prepare.pascal import prepare_pascal, summary
    from fss.data.prepare.suim import prepare_suim

    root = given.root.expanduser()
    archives = given.archives.expanduser() if given.archives else root
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        lock.hold(root, "prepare another folder")
        if given.dataset == "pascal5i":
            print(*prepare_pascal(root, archives, given.workers, given.download), *summary(root), sep="\n")
        elif given.dataset == "isic":
            print(*prepare_isic(root, archives, given.download), sep="\n")
        elif given.dataset == "deepglobe":
            print(*prepare_deepglobe(root, archives, given.workers, given.download), sep="\n")
        elif given.dataset == "chestxray":
            print(*prepare_chestxray(root, archives, given.workers, given.download), sep="\n")
        elif given.dataset == "suim":
            print(*prepare_suim(root, archives, given.download), sep="\n")
        else:
            for image_set in given.sets:
                lines = prepare_coco(
                    root, archives, image_set, given.year, given.crowd, given.workers, given.download
                )
                print(*lines, sep="\n")
    except (OSError, ValueError) as error:
        print(f"error: {shown(error, lines=True)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to continue.", file=sys.stderr)
        return 130
    finally:
        lock.release(root)
        with suppress(OSError):  # not empty: something has been prepared
            for folder in made:
                folder.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
