"""The loops that train and judge, and the files they keep."""
