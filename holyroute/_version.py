"""The version of holyroute; requests' own version stays visible as `holyroute.__version__`."""

__version__ = "0.1.0"
