"""Opens the page: few-shot segmentation of your own pictures in the browser.

python -m fss.web
python -m fss.web --model outputs/demo/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0 --port 8000
"""

from __future__ import annotations

import argparse
import sys

from fss.display.shown import shown
from fss.processes.cores import share_cores
from fss.web.offline import stay_on_this_computer
from fss.web.port import check_port


def main() -> int:
    """Loads the model and serves the page until it is stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m fss.web", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="match",
        help="a run folder, a model file, or match or prior, which need no training; default: %(default)s",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:1, ...; default: %(default)s")
    given = parser.parse_args()
    stay_on_this_computer()
    share_cores()
    try:
        check_port(given.port)
        from fss.predictor import FewShotPredictor  # these take seconds, which --help need not wait for
        from fss.web.server import serve

        serve(FewShotPredictor.load(given.model, given.device), given.port)
    except ModuleNotFoundError as error:
        print(f'error: {error}: the page needs Gradio, pip install "fss-svf[web]"', file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"error: {shown(error, lines=True)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
