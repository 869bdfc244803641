from requests.utils import *
