"""The words by which mail in twenty languages names codes and numbers of other kinds. Data, and no rule.

Parts of regular expressions in lower case: English first, then zh ja ko de fr es pt it ru pl tr ar hi vi id th nl uk
cs.
A word that begins with a word boundary is one of a language that sets spaces.
"""

# What names a code.
CODES = (
    *(r"\bcodes?\b(?!-\w)", r"\botp\b", r"\bpin\b", r"\bone[- ]time\b", r"\bpasswords?\b"),
    *(
        r"\b2fa\b",
        r"\btoken\b",
        r"\b(?:m|i|e|sms|push|chip|photo)?-?tan\b",
        r"\bpasscode\b",
        r"\b(?:activation|access|security|login) key\b",
        r"\bconfirmation number\b",
        r"\bverification(?: number)?\b(?! (?:link|e-?mail|is not))",
    ),
    *(
        "验证码",
        "驗證碼",
        "校验码",
        "校驗碼",
        "动态码",
        "動態碼",
        "确认码",
        "確認碼",
        "激活码",
        "认证码",
        "認證碼",
        "口令",
        "密码[是为：:]",
    ),
    *(
        "密碼[是為：:]",
        "授权码",
        "(?<![号號编編代条條维維尺邮郵源页頁])[码碼](?=[：:是为為])",
        "随机码",
        "隨機碼",
        "安全码",
        "安全碼",
        "コード",
        "認証番号",
        "確認番号",
        "認証キー",
        "確認キー",
        "暗証番号",
        "パスワード",
        "인증 ?번호",
        "인증 ?코드",
    ),
    *(
        "확인 ?코드",
        "코드",
        "보안 ?코드",
        "비밀번호",
        "확인 ?번호",
        r"\b\w*codes?\b(?!-\w)",
        r"\bkennwort\b",
        r"\b\w*passwort\b",
    ),
    *(
        r"\bmot de passe\b",
        r"\bpalavra-passe\b",
        r"\bcódigos?\b",
        r"\bcodigos?\b",
        r"\bclave\b",
        r"\bcontraseña\b",
        r"\bsenha\b",
        r"\bcodic[ei]\b",
    ),
    *(
        r"\bкод(?:а|у|ом)?\b",
        r"\bпарол\w{1,2}\b",
        r"\bkod(?:u|em|ów)?\b",
        r"\bhasł[oa]\b",
        r"\b\w*kod(?:u|unuz|unu|um)?\b",
    ),
    *(
        r"\bşifre\w*",
        "رمز",
        "كود",
        "كلمة المرور",
        "كلمة مرور",
        "कोड",
        "ओटीपी",
        "पासवर्ड",
        r"\bmã\b",
        r"\bmật khẩu\b",
        r"\bkode\b",
    ),
    *(
        r"\bkata sandi\b",
        r"\bsandi\b",
        "รหัส",
        "โค้ด",
        r"\b\w*wachtwoord\b",
        r"\bpincode\b",
        r"\bkód(?:u|em)?\b",
        r"\bheslo\b",
    ),
)
# What a mail calls a code by its form alone.
NUMBERS = (
    r"numbers?|digits?|characters?|zahl|ziffern?|zeichen|chiffres?|nombre|numéros?|números?|dígitos?|numeri|numero"
    r"|cifre|числ[оа]|цифр[ыі]|"
    r"liczb[ęy]|cyfry|sayı(?:yı)?|angka|getal|cijfers?|čísl[oa]|số"
)
# What asks to enter a code, in front of it and behind it; what for.
ENTER_BEFORE = (
    *(
        r"\b(?:enter|type(?: in)?|use|input|submit|copy|paste)\b",
        r"\b(?:verwenden sie|nutzen sie|utilisez|utiliza|utilice|usa|utilize|utilizza|используйте|використайте|użyj"
        r"|kullanın|استخدم|gunakan|dùng"
        r"|gebruik|použijte)\b",
        "ใช้",
        "使用",
        "输入",
        "輸入",
        r"\b(?:geben sie|gib|eingeben|tragen sie|trage|tippen sie)(?: bitte)?\b",
        r"\b(?:entrez|saisissez|tapez)\b",
    ),
    *(r"\b(?:escribe|introduce|introduzca|ingresa|ingrese|teclea)\b", r"\b(?:informe|digite|insira|introduza)\b"),
    *(
        r"\b(?:digita|inserisci|immetti)\b",
        r"\bвведите\b",
        r"\b(?:podaj|wpisz|wprowadź)\b",
        "أدخل",
        "ادخل",
        r"\bnhập\b",
    ),
    *(r"\b(?:ketik|masukkan)\b", "กรอก", "ใส่", r"\b(?:typ|voer|vul)\b", r"\bвведіть\b", r"\b(?:zadejte|zadej)\b"),
)
ENTER_AFTER = (r"\b(?:ein|eingeben)\b", "を入力", "を ?入力", "[을를] ?입력", "दर्ज करें", r"\bgirin\b", r"\bin\b(?= om)")
PURPOSE = (
    *(
        r"\b(?:confirm|verif|sign|log|activat|authenticat|authentifi|finish|complet)",
        "验证",
        "驗證",
        "确认",
        "登录",
        "登入",
        "確認",
        "登録",
        "認証",
    ),
    *(
        "ログイン",
        "인증",
        "확인",
        "로그인",
        "본인",
        r"\b(?:bestätig|aktivier|anmeld|verifizier)",
        r"\b(?:confirm|valid|connect|connex|vérifi)",
    ),
    *(
        r"\b(?:iniciar|verific|acced|activ)",
        r"\b(?:entrar|ativ)",
        r"\b(?:conferm|verific|acced)",
        r"\b(?:подтвер|вход|войти)",
    ),
    *(
        r"\b(?:potwierdz|zalog|weryfik)",
        r"\b(?:onayla|doğrula|giriş)",
        "تأكيد",
        "لتأكيد",
        "تسجيل",
        "पुष्टि",
        "सत्याप",
        "लॉग",
    ),
    *(
        r"\b(?:xác|đăng nhập)",
        r"\b(?:konfirm|mengonfirm|verifik|masuk)",
        "ยืนยัน",
        "เข้าสู่",
        r"\b(?:bevestig|inlog|verifi)",
    ),
    *(r"\b(?:підтвер|увійти|вхід)", r"\b(?:potvrz|ověř|přihlá)"),
)
# What stands between a word and its code.
CUES = (
    r"is|are|ist|lautet|est|es|é|è|e'|to|je|jest|là|adalah|คือ|هو|هي|है|[是为為はが:：=＝＞>«»“”„\"'‘’「『【\[（(—–*\s-]|"
    r"는|은|입니다|below|here|voici|это|це"
)
# What leads up to a code at some distance from its word, and what leads up to a time of day.
LED_UP_TO = (
    r"is|are|ist|lautet|est|es|é|è|(?<=[jn]y )to|(?<=kod )to|(?<=owe )to|(?<=sło )to|jest|adalah|है|هو|هي|là|je|below"
)
ARTICLES = "the following|the|le|la|el|il|lo|o|der|die|das|siguiente|suivant|seguente|seguinte"
# What makes a number an example.
LIKE = r"like|such as|e\.g\.?|for example|wie|z\.b\.?|comme|como|come|jak|типа|например"
# What says what a code is for, between its word and what leads up to it.
FOR = r"for|to|für|zur|zum|pour|para|per|na|do|voor|pro|k|для|на|за|por|cho|untuk|için|لـ|के लिए|สำหรับ"
LED_UP_TO_UNSPACED = "คือ|は|为|為|是|는|은"
AT_A_TIME = "at|um|à|a las|às|alle|в|о|o|saat|lúc|pukul|om|ve|by|until|before|bis"
