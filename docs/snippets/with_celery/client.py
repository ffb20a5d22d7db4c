from tasks import total

result = total.delay([3, 5], discount=50)
print(result.get(timeout=10))  # 4.0
try:
    total.delay(["three", "five"]).get(timeout=10)
except TypeError as error:
    print(type(error).__name__)  # TypeError
