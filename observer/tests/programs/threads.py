# Threads that wait for good, each in another way, and each some calls deep.
import ctypes
import queue
import select
import socket
import subprocess
import sys
import threading
import time

lock = threading.Lock()
lock.acquire()
pair = socket.socketpair()


def deep(wait, depth):
    return wait() if depth == 0 else deep(wait, depth - 1)


def sorted_by_c(wait):
    # The C library's qsort calls back into Python.
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc = ctypes.CDLL(None)
    numbers = (ctypes.c_int * 4)(3, 2, 1, 0)
    libc.qsort(numbers, 4, 4, kind(lambda a, b: wait() or 0))


waits = [
    lambda: lock.acquire(),
    lambda: lock.acquire(timeout=10000),
    lambda: time.sleep(10000),
    lambda: queue.Queue().get(),
    lambda: threading.Condition().wait_for(lambda: False),
    lambda: threading.Event().wait(10000),
    lambda: select.select([pair[0]], [], []),
    lambda: pair[0].recv(1),
    # The child ends with this process, at the end of its input.
    lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE).wait(),
    lambda: sorted_by_c(lambda: time.sleep(10000)),
    lambda: max(range(3), key=lambda number: time.sleep(10000)),
]
condition = threading.Condition()


def in_condition():
    with condition:
        condition.wait()


waits[4] = in_condition
for depth in (0, 3, 40):
    for wait in waits:
        threading.Thread(target=deep, args=(wait, depth), daemon=True).start()
sys.stdin.close()
time.sleep(10000)
