"""This version of Manta; a test holds it equal to the distribution's."""

VERSION = "0.1.0"
