"""The command line: Click on top of `pvc.client`, which is its only way in. Heavy things are imported when used."""
