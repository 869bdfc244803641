from requests.hooks import *
