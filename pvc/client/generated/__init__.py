"""What is made from the gateway's endpoints by `python -m pvc.schemas`. Change it there, never here."""
