"""Breaks a lab in many ways at once while clients work with it, and checks what must hold all the same."""
