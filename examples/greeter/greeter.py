"""The greeter in Python: python examples/greeter/greeter.py --id greeter-a --bind 127.0.0.1:9001

Its code is the module that `lb demo` starts, so that it's there after `pip install` too.
"""

from lb.demo.greeter import main

if __name__ == "__main__":
    main()
