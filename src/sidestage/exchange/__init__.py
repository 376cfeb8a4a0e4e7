"""HTTP exchanges that pass by, read and compared, on the laptop only: nothing here touches a byte that anybody gets.

observer.py follows one connection (http1.py, http2.py read it); compare.py finds the difference of two answers to one request.
"""
