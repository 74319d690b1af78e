"""The words by which mail in twenty languages names numbers that are no codes to enter. Data, and no rule.

Parts of regular expressions in lower case, as in code_words. A kind of code that is no code to enter (of an error, of
a discount, of a place) is named here whole, so that it ends after the word for a code in it.
"""

# What names another number, or a code of another kind.
OTHERS = (
    r"\b(?:zip|postal|post|promo|promotion(?:al)?|discount|coupon|voucher|gift|branch|store|office|bank|depot|station|agent|employee|student|company|fault|error|status|country|area|source|bar"
    r"|qr|dress|reason|http|exit|return|result|response|currency|airport|colou?r|dial(?:l?ing)?|door|gate)"
    r"[- ]?codes?\b",
    r"\b(?:invoice|order|item|customer|product|sort|swift|referral|invite|invitation|class|promotion|campaign)"
    r"[- ]?codes?\b",
    r"\b(?:course|module|subject|booking|reservation|gift[- ]?card|pick-?up|collection|locker|tracking|license"
    r"|licence|redemption|ticket|record|tax|hs|naics"
    r"|buchungs?|reservierungs?|boekings?|reserverings?)[- ]?codes?\b",
    r"\b(?:digicode|interphone|door ?code|türcode|deurcode|domofon\w*|домофон\w*|citofono|portero automático)\b",
    r"\b(?:code|código|codice|kod|код|kód|kode|mã) (?:de la |del |da |do |di |du |d')?(?:porte|portail|immeuble|entrée"
    r"|puerta|portal|porta|portão|portone|cancello|bramy|wejścia|drzwi|двер\w*|подъезд\w*|під['’]їзд\w*|vchodu|pintu"
    r"|cửa)\b",
    r"\bcode (?:of conduct|review|civil|pays|source|qr|(?:d')?erreur|swift|bic|(?:de |du )?(?:parrainage|cadeau|guichet"
    r"|banque|la route|produit|statut)|vestimentaire|avantage|d'invitation|de suivi|de réservation)",
    r"\b(?:error|exit|promo|voucher) (?:number|no)\b",
    r"\b(?:fehler|gutschein|rabatt|aktions|promo|gewinn|post|artikel|länder|qr|bar|strich|status|kunden|einladungs"
    r"|empfehlungs|geschenk|farb|quell|dress|error|produkt|vorteils|bonus)[- ]?codes?\b",
    r"\bcódigos? (?:postal|promocional|qr|fuente|fonte|civil|penal|iban|swift|bic|de (?:barras|descuento|vestimenta"
    r"|desconto|rastreio|rastreamento|seguimiento|error|erro|área|país|cliente|producto|produto|artículo|color|cor"
    r"|conducta|conduta|regalo|presente|invitación|convite|indicação|referido|reserva|moneda)|do (?:produto|cliente"
    r"|país)|da reserva)",
    r"\bcodice (?:sconto|fiscale|postale|promo(?:zionale)?|a barre|cliente|articolo|(?:di )?errore|qr|paese|prodotto"
    r"|colore|invito|amico|regalo|sdi|destinatario|swift|bic|iban|univoco|(?:di )?prenotazione|sorgente|civile|ateco"
    r"|(?:di )?tracciamento)",
    r"\b(?:промо|qr|штрих|куар)-?\s?код\w*",
    r"\bкод\w{0,3} (?:валют|товар|город|регион|ошибк|скидк|знижк|стран|купон|бронир|бронюв|заказ|замовлен|отслеж"
    r"|відстеж|подраздел|клиент|клієнт|цвет|кольор|помилк|міст|країн|swift|єдрпоу)\w*",
    r"\b(?:почтов|поштов|исходн)\w+ код\w*",
    r"\bkod\w{0,3} (?:rabat|pocztow|promoc|kreskow|błęd|bled|kraju|kierunkow|produkt|qr|klient|rezerwac|polecaj"
    r"|zaprosz|kolor|upomin|swift|źródł|zniżk)\w*",
    r"\b(?:slevov|poštovn|chybov|čárov|rezervačn|dárkov|zdrojov|stavov|qr)\w* kód\w*",
    r"\bkód\w{0,3} (?:chyb|země|produkt|zboží|zákazn|rezerv|banky|qr|kup[oó]n)\w*",
    r"\b(?:indirim|posta|promosyon|kupon|hata|alan|ürün|ülke|rezervasyon|davet|referans|hediye|qr|karekod|müşteri"
    r"|renk|kampanya|swift) kod\w*",
    "(?:رمز|كود) ?(?:ال)?(?:خصم|خطأ|بريدي|دولة|منطقة|عرض|قسيمة|حجز|منتج|استجابة|دعوة)",
    "(?:त्रुटि|कूपन|पिन|डिस्काउंट|प्रोमो|ऑफर|ऑफ़र|देश|एरिया|क्यूआर|बार|रेफरल|गिफ्ट|उत्पाद|बुकिंग) ?कोड",
    r"\bmã (?:lỗi|giảm giá|đơn|khuyến mãi|bưu|khách hàng|vạch|qr|vùng|quốc gia|sản phẩm|giới thiệu|ưu đãi|quà"
    r"|số thuế|đặt (?:chỗ|vé|phòng)|vận đơn|chuyến|hóa đơn|nguồn|hồ sơ)",
    r"\bkode (?:pos|promo|diskon|kupon|barang|negara|kesalahan|error|galat|area|wilayah|voucher|referral|undangan|qr"
    r"|batang|produk|booking|pemesanan|etik|sumber|bank|resi)",
    "(?:รหัส|โค้ด) ?(?:ข้อผิดพลาด|ไปรษณีย์|ส่วนลด|ประเทศ|สินค้า|ลูกค้า|พื้นที่|การจอง|คูปอง|โปรโมชั่น)",
    "คิวอาร์โค้ด|บาร์โค้ด",
    r"\b(?:kortings?|actie|post|fout|land|artikel|qr|streep|bar|klant|voucher|cadeau|status|uitnodigings|vrienden"
    r"|product|kleur|bron|gedrags|kleding|promotie)-?codes?\b",
    "(?:门店|網點|网点|银行|銀行|学校|部门|错误|錯誤|状态|狀態|国家|國家|股票|发票|發票|商品|机构|产品|源)代[码碼]",
    "(?:错误|錯誤|兑换|兌換|邀请|邀請|优惠|優惠|折扣|条|條|二维|推荐|邮政编|推薦)[码碼]|優惠券|优惠券|区号|區號",
    "(?:営業所|店舗|支店|銀行|学校|部署|社員|エラー|qr|バー|クーポン|国|商品|招待|紹介|プロモーション|ギフト|証券|金融機関|ソース|優待|割引|キャンペーン)コード",
    "(?:오류|에러|쿠폰|할인|우편|국가|상품|초대|추천인?|예약|바|qr|프로모션|상태|기프트|지역|사업자) ?(?:코드|번호)",
    r"\b(?:discount|rabatt?|remise|réduction|descuento|desconto|sconto|indirim|скидк\w*|знижк\w*|slev[auy]|korting"
    r"|giảm giá|diskon)\b",
    "할인|割引|折扣|خصم|छूट|ส่วนลด",
    r"\b(?:rezervasyon kodu\w*|localizador|buchungs?nummer|trace id|error|fehler|erreur|błąd|hata)\b",
    "取件码",
    "提货码",
    "取餐码",
    "取票码",
    "予約コード",
    "예약 ?코드",
    *(
        r"\border\b",
        r"\binvoice\b",
        r"\bphone\b",
        r"\btel\b",
        r"\btelephone\b",
        r"\bcall\b",
        r"\bfax\b",
        r"\btracking\b",
        r"\bticket\b",
    ),
    *(
        r"\bcase\b",
        r"\btotal\b",
        r"\bprice\b",
    ),
    *(
        r"\bending in\b",
        r"\breference\b",
        r"\bref\b",
        r"\bbooking\b",
        r"\bcopyright\b",
        "©",
        r"\bsave\b",
    ),
    *(
        r"\bflight\b",
        r"\bextension\b",
        r"\bamount\b",
    ),
    *(
        r"\bsku\b",
        r"\bserial\b",
        r"\bpo box\b",
        r"\bbalance\b",
        r"\bpoints\b",
    ),
    *(
        "订单",
        "訂單",
        "编号",
        "編號",
        "单号",
        "發票",
        "发票",
        "电话",
        "電話",
        "金额",
        "金額",
        "邮编",
        "郵編",
        "优惠码",
        "優惠碼",
        "折扣码",
    ),
    *(
        "尾号",
        "尾號",
        "余额",
        "客服",
        "地址",
        "致电",
        "货到",
        "注文番号",
        "予約番号",
        "会員番号",
        "請求書",
        "クーポンコード",
        "郵便番号",
    ),
    *(
        "〒",
        "料金",
        "合計",
        "振込",
        "ポイント",
        "お問い合わせ",
        "주문 ?번호",
        "예약 ?번호",
        "회원 ?번호",
        "쿠폰 ?코드",
        "우편 ?번호",
    ),
    *("끝자리", "고객센터", "문의", "전화", "요금", "결제", "적립금", "할인 ?코드"),
    *(
        r"\bbestell\w*",
        r"\brechnung\w*",
        r"\b(?:gutschein|rabatt|aktions|promo|gewinn|post|fehler|artikel|länder)-?codes?\b",
        r"\bplz\b",
    ),
    *(
        r"\bkunden\w*",
        r"\btelefon\w*",
        r"\bblz\b",
        r"\bbetrag\b",
        r"\brückfragen\b",
        r"\bpostleitzahl\b",
    ),
    *(
        r"\bcode[- ]?(?:postal|promo|barres?|barre|de la porte|article|client|couleur|réduction|de réduction)\b",
        r"\bcommande\b",
    ),
    *(
        r"\bfacture\b",
        r"\btél\b",
        r"\btéléphone\b",
        r"\bmontant\b",
    ),
    *(
        r"\bcódigo (?:postal|promocional|de (?:barras|descuento|vestimenta|desconto|rastreio|error|área))",
        r"\bpedido\b",
    ),
    *(
        r"\bfactura\b",
        r"\bteléfono\b",
        r"\bimporte\b",
    ),
    *(
        r"\bcep\b",
        r"\bfatura\b",
        r"\bcupom\b",
        r"\bvalor\b",
        r"\btelefone\b",
    ),
    *(
        r"\bcodice (?:sconto|fiscale|postale|promo(?:zionale)?|a barre|cliente|articolo)",
        r"\bordine\b",
        r"\bfattura\b",
        r"\bcap\b",
    ),
    *(r"\btelefono\b", r"\bimporto\b", r"\bassistenza\b", r"\btotale\b"),
    *(
        r"\bпромо-?код\w*",
        r"\bкод (?:валюты|товара|города|региона|ошибки|знижки)",
        r"\bзаказ\w*",
        r"\bсч[её]т\w*",
    ),
    *(
        r"\bтелефон\w*",
        r"\bиндекс\w*",
        r"\bкабинет\w*",
        r"\bподдержка\b",
        r"\bсумм\w*",
        r"\bадрес\b",
        "№",
    ),
    *(
        r"\bkod (?:rabatowy|pocztowy|promocyjny|kreskowy|błędu|kraju)",
        r"\bzamówieni\w*",
        r"\bfaktur\w*",
        r"\btel\.",
    ),
    *(r"\bkwot\w*", r"\bgabinet\b", r"\binfolinia\b", r"\bulica\b", r"\bul\."),
    *(
        r"\b(?:indirim|posta|promosyon|kupon|hata|alan|ürün) kodu\w*",
        r"\bsipariş\w*",
        r"\bmüşteri\b",
        r"\btutar\b",
    ),
    *(
        r"\bdestek\b",
        r"\bno\b(?=[.: ]{0,2}$)",
        "كود الخصم",
        "رمز بريدي",
        "الرمز البريدي",
        "رقم الطلب",
        "فاتورة",
        "هاتف",
        "اتصل",
    ),
    *(
        "المنتهية",
        "المبلغ",
        "بمبلغ",
        "कूपन कोड",
        "पिन कोड",
        "डिस्काउंट कोड",
        "ऑर्डर",
        "चालान",
        "ग्राहक",
        "राशि",
        "फोन",
    ),
    *(
        "खाते",
        "संदर्भ",
        "हेल्पलाइन",
        "कमरा",
        r"\bmã (?:giảm giá|đơn hàng|khuyến mãi|bưu chính|khách hàng|vạch)",
        r"\bđơn hàng\b",
    ),
    *(
        r"\bhóa đơn\b",
        r"\bkhách hàng\b",
        r"\bđiện thoại\b",
        r"\btổng đài\b",
        r"\bsố tiền\b",
        r"\bsố cuối\b",
    ),
    *(
        r"\bkode (?:pos|promo|diskon|kupon|barang|negara)",
        r"\bpesanan\b",
        r"\bfaktur\b",
        r"\bpelanggan\b",
    ),
    *(r"\btelepon\b", r"\bjumlah\b", r"\brekening\b", r"\bberakhiran\b", r"\bbantuan\b", r"\bruang\b", r"\bnomor\b"),
    *(
        "โค้ดส่วนลด",
        "รหัสไปรษณีย์",
        "รหัสส่วนลด",
        "คำสั่งซื้อ",
        "ใบแจ้งหนี้",
        "ลูกค้า",
        "โทร",
        "จำนวน",
        "ลงท้าย",
        "ยอดรวม",
    ),
    *(
        r"\b(?:kortings?|actie|post|fout|land|artikel)-?code\b",
        r"\bbestel\w*",
        r"\bfactuur\b",
        r"\bklant\b",
        r"\bbedrag\b",
    ),
    *(
        r"\brekening\b",
        r"\bhulp\b",
        r"\bзамовлення\b",
        r"\bрахунок\b",
        r"\bпідтримка\b",
    ),
    *(r"\bіндекс\w*", r"\bкабінет\b", r"\bслевов\w*", r"\bslevový kód\b", r"\bpsč\b", r"\bobjednávk\w*"),
    *(
        r"\bzákazník\b",
        r"\bčástk\w*",
        r"\blinka\b",
        r"\bmístnost\b",
        r"\bcelkem\b",
        r"\bpoštovní kód\b",
    ),
)
# What names the number that it touches, with or without "number", "no." and the like between them.
NEAR = (
    r"accounts?|customer|ring|dial|card|member(?:ship)?|page|port|street|chapter|build|room|suite|seats?|model"
    r"|version|section",
    r"issue|bug|article|line|row|gate|floor|apt|apartment|unit|step|lot|bus|train|release|rfc|iso|bay|platform"
    r"|terminal|channel",
    r"zone|group|lesson|season|episode|vol(?:ume)?|fig|table|appendix|locker|licen[cs]e|policy|meeting|track|sample"
    r"|patient|store",
    r"konto|kunden|seite|client|compte|carte|salle|cliente|cuenta|tarjeta|sala|ayuda|conta|cartão|ajuda|conto|carta"
    r"|stanza|zimmer",
    r"hesap|oda|koltuk|tài khoản|phòng|ghế|pas|kamer|stoel|účet|karta|sedadlo|клиент\w*|клієнт\w*|kart\w*|klient\w*"
    r"|карт[аыуо]\w*",
    r"картка|место|місце|miejsce|sitz|siège|asiento|assento|posto|kursi|vorgang|dossier|version",
)
NEAR_UNSPACED = "บัญชี|ห้อง|ที่นั่ง|حساب|غرفة|مقعد|सीट"
NEAR_LINKS = r"number|numbers|no|nr|n|num|id|ending|in|with|us|at|on|to|is|nummer|número|numero|numéro|numer|номер"
r"|final|xx|terminada|de|se|con|em"
# What names a booking or a payment where a mail is about one, and what tells that it is.
BOOKED = r"\b(?:confirmation (?:code|number|no\b|#)|auth(?:ori[sz]ation)? (?:code|no\b|#)|approval code)"
BOOKING = (
    r"\b(?:check-?in|itinerary|reservations?|flights?|boarding|passengers?|guests?|departures?|arrival|hotel"
    r"|nights?|e-?ticket|gate"
    r"|seat|stay|trip|booking|room|table for|terminal|merchant|subtotal|visa|mastercard|cashier)\b"
)
# What makes a number an amount, a span of time, points or a part of an address.
UNITS = (
    r"€|\$|£|¥|₹|₽|₴|%|‰|°|eur\b|usd|gbp|euros?\b|kr\b|kč|zł|pln\b|czk|руб|р\.|грн|гривень|tl\b|円|元|块|원|đồng|vnd"
    r"|บาท|ريال|रुपये|"
    r"reais|dollars?\b|pounds?\b|pts\b|points?\b|punkte|puntos|pontos|punti|punktów|балл|бал|bodů|puan|نقطة|अंक"
    r"|điểm|poin\b|คะแนน|"
    r"ポイント|分钟|分鐘|min\b|minut|stunden|hours?\b|days?\b|seconds?\b|年|月|日|时|時|년|월|일|시|점|uhr\b|h\b|km\b|kg\b|mb\b|gb\b"
    r"|kb\b|"
    r"px\b|ms\b|года?\b|року\b|rok|yıl|people|users|items|tokens|rows|words|lines|members|orders|messages|characters|digits|位|桁|자리"
)
