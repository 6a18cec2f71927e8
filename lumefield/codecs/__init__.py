"""Codecs: nouns to bytes and back. Two public halves: ``neural`` and ``formats``."""
