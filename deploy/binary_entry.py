"""Where the executable begins: processes that multiprocessing starts are this file again, and leave before ortsep."""

import multiprocessing

from ortsep.__main__ import main

if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
