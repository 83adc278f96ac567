"""Segments pictures and videos for classes that a few pictures with masks show.

python predict.py model=RUN supports=DIR queries=DIR out=DIR
python predict.py model=match supports=DIR queries=clip.mp4 every=10     # training-free; every tenth frame
"""

from fss.cli.commands import predict as main
from fss.cli.errors import run_script

if __name__ == "__main__":
    run_script(main)
