"""Starts the page: `python app.py` (or `make demo`). Settings come from the environment, see demo/settings.py."""

from demo.server import main

if __name__ == "__main__":
    main()
