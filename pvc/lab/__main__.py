"""`python -m pvc.lab`: the same as `pvc lab`, where `pvc` itself is not to be loaded."""

from pvc.lab.cli import lab

if __name__ == "__main__":
    lab(prog_name="pvc lab")
