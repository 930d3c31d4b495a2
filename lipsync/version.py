"""Version of the program.

Rows of the benchmark name it beside the weights, and are made once for each: it is raised whenever the same inputs make
other pictures, between releases too (`.dev1`, `.dev2`).
"""

VERSION = "0.3.0.dev2"
