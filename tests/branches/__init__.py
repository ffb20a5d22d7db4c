"""Which statements and branches of amphora the tests take, at the speed of an ordinary test run.

    python -m tests.branches            # all tests; fails if they take too few
    python -m tests.branches -k name    # some tests; nothing is measured

A tracer like that of coverage.py is called for each line of each library, and asks each time which
greenlet runs: tests of gevent code take three times as long.  Here the code of amphora is changed
before the run, so that it marks what it takes (`marking`), and each Python that the run starts
loads the changed code (`loading`).  All processes mark in one file, however they end.  What is
marked there is reported by coverage.py (`__main__`).
"""
