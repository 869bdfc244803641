from requests.adapters import *
