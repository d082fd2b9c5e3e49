"""``python -m m2unet``, and so ``torchrun ... -m m2unet train``."""

from m2unet.cli.main import run

if __name__ == "__main__":
    run()
